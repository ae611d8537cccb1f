//! The calling thread's slot: the hot path, and the slow path that follows when too little is left.

use std::cell::Cell;
use std::ptr;

use super::atomic::AtomicU64;
use super::atomic::Ordering::Relaxed;
use super::mode::Mode;
use super::peak::LEAST;
use super::registry::Registry;
use super::slot::{AlreadyCounted, Slot, Writer, doubled, is_large};
use super::totals::{ThreadCounts, Totals};

static REGISTRY: Registry = Registry::new();

/// The mean distance between samples of the heap profile, in bytes. 0 while none runs.
static MEAN: AtomicU64 = AtomicU64::new(0);

/// The slot of threads that have none. It refuses every call, so that the hot path has one thing to test.
static UNOWNED: Slot = Slot::closed();

/// The state with which a thread counts. Without a destructor, so that it can be used at any time.
struct Local {
    /// [`UNOWNED`], or a slot of this thread alone.
    slot: Cell<*const Slot>,
    /// True when the thread is past its destructors. What it still allocates is counted in the registry's `rest`.
    has_ended: Cell<bool>,
    /// True once an allocator that can take samples has been in the slow path.
    can_sample: Cell<bool>,
    /// The last result of [`thread_counts`].
    counts: Cell<(u64, ThreadCounts)>,
    /// How many allocations of this thread were too large for the hot path.
    large: Cell<u64>,
}

thread_local! {
    static LOCAL: Local = const {
        Local {
            slot: Cell::new(&raw const UNOWNED),
            has_ended: Cell::new(false),
            can_sample: Cell::new(false),
            counts: Cell::new((0, ThreadCounts { allocated: 0, allocations: 0 })),
            large: Cell::new(0),
        }
    };
    /// Accessed once by each thread, so that its destructor runs when the thread ends.
    static END: End = const { End };
}

struct End;

impl Drop for End {
    fn drop(&mut self) {
        LOCAL.with(|local| {
            local.has_ended.set(true);
            if let Some(slot) = local.own() {
                local.slot.set(&UNOWNED);
                REGISTRY.release(slot);
            }
        });
    }
}

impl Local {
    /// Returns the slot that the hot path may try to count in.
    #[inline(always)]
    fn slot(&self) -> &'static Slot {
        // SAFETY:
        // * The pointer is that of `UNOWNED` or of a slot of the registry, and neither is ever freed.
        unsafe { &*self.slot.get() }
    }

    /// Returns the thread's slot, if it has one.
    #[inline(always)]
    fn own(&self) -> Option<&'static Slot> {
        Some(self.slot()).filter(|slot| !ptr::eq(*slot, &UNOWNED))
    }

    /// Returns the thread's slot, and claims one first if the thread has none and has not ended.
    fn own_or_new(&self) -> Option<&'static Slot> {
        self.own().or_else(|| if self.has_ended.get() { None } else { self.claim() })
    }

    #[inline(never)]
    fn update_counts(&self) -> (u64, ThreadCounts) {
        let Some(slot) = self.own_or_new() else { return Default::default() };
        let counts = (slot.progress(), slot.counts(self.large.get()));
        self.counts.set(counts);
        counts
    }

    #[cold]
    fn claim(&self) -> Option<&'static Slot> {
        let slot = REGISTRY.claim()?;
        self.slot.set(slot);
        // On some systems this allocates and comes back here, which is why the slot is set first.
        let _ = END.try_with(|_| ());
        Some(slot)
    }
}

/// Shows that the hot path has counted a block, which therefore has at most [`STEP`](super::peak::STEP) bytes.
pub(super) struct Small(());

// The hot path. Where it returns `None`, the function `*_slow` of that call has to follow.

/// Counts a call of `alloc` or `alloc_zeroed`, unless too little is left. The size is given as [`doubled`] returns it.
#[inline(always)]
pub(super) fn count_alloc(doubled: usize) -> Option<Small> {
    LOCAL.with(|local| local.slot().take_alloc(doubled)).then_some(Small(()))
}

/// Counts a call of `dealloc`, unless too little is left.
#[inline(always)]
pub(super) fn count_dealloc(size: usize) -> Option<Small> {
    LOCAL.with(|local| local.slot().take_dealloc(size)).then_some(Small(()))
}

/// Counts a call of `realloc`, unless too little is left.
#[inline(always)]
pub(super) fn count_realloc(old: usize, new: usize) -> Option<Small> {
    LOCAL.with(|local| local.slot().take_realloc(old, new)).then_some(Small(()))
}

/// Takes back what [`count_alloc`] counted, since the call failed, and returns null.
#[cold]
#[inline(never)]
pub(super) fn alloc_failed(doubled: usize) -> *mut u8 {
    take_back(|slot| slot.untake_alloc(doubled));
    failed()
}

/// Takes back what [`count_realloc`] counted, since the call failed, and returns null.
#[cold]
#[inline(never)]
pub(super) fn realloc_failed(&(old, new): &(usize, usize)) -> *mut u8 {
    take_back(|slot| slot.untake_realloc(old, new));
    failed()
}

// The slow path, after the hot path has returned `None`.

/// Does and counts a call of `alloc` or `alloc_zeroed`. `call` gets the weight of the sample, if one is due.
#[inline(always)]
pub(super) fn alloc_slow<M: Mode>(size: usize, call: impl FnOnce(Option<f64>) -> *mut u8) -> *mut u8 {
    let doubled = doubled(size);
    let already = already_counted(|slot| slot.already_counted_alloc(doubled));
    let weight =
        if M::IS_SAMPLED { draw(|slot, mean| slot.draw_alloc(doubled, already, mean)) } else { None };
    let ptr = call(weight);
    if ptr.is_null() {
        take_back(|slot| slot.uncount_alloc(already));
        return failed();
    }
    settle(size as isize, |slot, writer| slot.count_alloc(doubled, already, writer));
    if is_large(doubled) {
        LOCAL.with(|local| local.large.set(local.large.get().wrapping_add(1)));
    }
    ptr
}

/// Counts a call of `dealloc`.
pub(super) fn dealloc_slow(size: usize) {
    let already = already_counted(|slot| slot.already_counted_dealloc(size));
    settle((size as isize).wrapping_neg(), |slot, writer| slot.count_dealloc(size, already, writer));
}

/// Does and counts a call of `realloc`. `call` gets the weight of the sample, if one is due.
#[inline(always)]
pub(super) fn realloc_slow<M: Mode>(
    old: usize,
    new: usize,
    call: impl FnOnce(Option<f64>) -> *mut u8,
) -> *mut u8 {
    let already = already_counted(|slot| slot.already_counted_realloc(old, new));
    let weight = if M::IS_SAMPLED { draw(|slot, mean| slot.draw_realloc(new, already, mean)) } else { None };
    let ptr = call(weight);
    if ptr.is_null() {
        take_back(|slot| slot.uncount_realloc(already));
        return failed();
    }
    let change = (new as isize).wrapping_sub(old as isize);
    settle(change, |slot, writer| slot.count_realloc(old, new, already, writer));
    ptr
}

/// Returns what the hot path has counted of the call that too little was left for.
fn already_counted(of: impl FnOnce(&Slot) -> AlreadyCounted) -> AlreadyCounted {
    match LOCAL.with(Local::own) {
        Some(slot) => of(slot),
        None => {
            UNOWNED.close();
            AlreadyCounted::default()
        }
    }
}

/// Returns the weight of a sample, if one is due. A thread past its destructors takes none.
fn draw(of: impl FnOnce(&Slot, u64) -> Option<f64>) -> Option<f64> {
    LOCAL.with(|local| {
        local.can_sample.set(true);
        of(local.own_or_new()?, MEAN.load(Relaxed))
    })
}

/// Counts a call, and publishes the bytes in use where they have changed enough.
fn settle(change: isize, count: impl Fn(&Slot, Writer)) {
    match LOCAL.with(Local::own_or_new) {
        Some(slot) => {
            count(slot, Writer::Owner);
            slot.publish(&REGISTRY.peak, LEAST);
        }
        None => {
            count(&REGISTRY.rest, Writer::Anyone);
            REGISTRY.peak.add(change);
        }
    }
}

/// Takes back what was counted in the thread's slot, if it has one.
fn take_back(uncount: impl FnOnce(&Slot)) {
    if let Some(slot) = LOCAL.with(Local::own) {
        uncount(slot);
        slot.publish(&REGISTRY.peak, LEAST);
    }
}

fn failed() -> *mut u8 {
    REGISTRY.failures.fetch_add(1, Relaxed);
    ptr::null_mut()
}

// The readers.

/// Returns the calling thread's counters. Zeros in a thread that is past its destructors.
pub(super) fn own_totals() -> Totals {
    LOCAL.with(Local::own_or_new).map(Slot::totals).unwrap_or_default()
}

/// Returns what the calling thread has allocated, and [`thread_progress`] before it. Zeros in a thread that is past its
/// destructors.
#[inline]
pub(crate) fn thread_counts() -> (u64, ThreadCounts) {
    LOCAL.with(|local| match local.own() {
        // Summing up the size counters is the expensive part, and mostly nothing was allocated since the last time.
        Some(slot) if slot.progress() == local.counts.get().0 => local.counts.get(),
        _ => local.update_counts(),
    })
}

/// Returns a number that changes with each allocation of the calling thread. It is quickly read.
#[inline]
pub(crate) fn thread_progress() -> u64 {
    LOCAL.with(|local| local.slot().progress())
}

/// Returns the counters of all threads, read one after the other.
pub(crate) fn totals() -> Totals {
    REGISTRY.totals()
}

/// Sets the mean distance between samples, in bytes. 0 stops sampling.
///
/// Each thread follows when it next has to look at its slot: after 32 KiB of allocations at the latest.
#[cfg(feature = "profile")]
pub(crate) fn set_mean(mean: u64) {
    MEAN.store(mean, Relaxed);
}

/// Returns true while samples are taken.
#[cfg(feature = "profile")]
pub(crate) fn is_sampling() -> bool {
    MEAN.load(Relaxed) > 0
}

/// Returns true if the global allocator can take samples. Finds out by an allocation that is large enough for the slow path.
#[cfg(feature = "profile")]
pub(crate) fn can_sample() -> bool {
    LOCAL.with(|local| local.can_sample.set(false));
    drop(std::hint::black_box(Vec::<u8>::with_capacity(2 * super::peak::STEP)));
    LOCAL.with(|local| local.can_sample.get())
}
