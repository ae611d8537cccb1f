//! The calling thread's slot: the hot path, and what happens when the slot wants to be looked at.

use std::cell::Cell;
use std::ptr;

use super::atomic::Ordering::Relaxed;
use super::peak::LEAST;
use super::registry::Registry;
use super::slot::{Beforehand, Slot, Writer};
use super::{ThreadCounts, Totals};

static REGISTRY: Registry = Registry::new();

/// The slot of the threads that have none. Nothing can be counted in it, so that the hot path has one thing to test.
static NOBODYS: Slot = Slot::closed();

/// What a thread needs to count. Without a destructor, so that it can be used at any time.
struct Local {
    /// Nobody's, or this thread's alone.
    slot: Cell<*const Slot>,
    /// The thread is past its destructors: what it still does is counted in the rest.
    ended: Cell<bool>,
    /// The last answer of `thread_counts`, and what `Slot::moves` was then.
    counts: Cell<(u64, ThreadCounts)>,
}

thread_local! {
    static LOCAL: Local = const {
        Local {
            slot: Cell::new(&raw const NOBODYS),
            ended: Cell::new(false),
            counts: Cell::new((0, ThreadCounts { allocated: 0, allocations: 0 })),
        }
    };
    /// Touched once, to have the thread's end made known.
    static END: End = const { End };
}

struct End;

impl Drop for End {
    fn drop(&mut self) {
        LOCAL.with(|local| {
            local.ended.set(true);
            if let Some(slot) = local.own() {
                local.slot.set(&NOBODYS);
                REGISTRY.give_back(slot);
            }
        });
    }
}

impl Local {
    /// The slot that the hot path may try to count in.
    #[inline(always)]
    fn slot(&self) -> &'static Slot {
        // SAFETY: nobody's, or one of the registry's: both are there for ever.
        unsafe { &*self.slot.get() }
    }

    /// The thread's slot, if it has one.
    #[inline(always)]
    fn own(&self) -> Option<&'static Slot> {
        Some(self.slot()).filter(|slot| !ptr::eq(*slot, &NOBODYS))
    }

    /// The thread's slot, a new one if need be, unless it has ended.
    fn own_or_new(&self) -> Option<&'static Slot> {
        self.own().or_else(|| if self.ended.get() { None } else { self.claim() })
    }

    /// The answer of `thread_counts` where it is another one than the last time.
    #[inline(never)]
    fn count_again(&self) -> ThreadCounts {
        let Some(slot) = self.own_or_new() else { return ThreadCounts::default() };
        let counts = ThreadCounts { allocated: slot.allocated(), allocations: slot.allocations() };
        self.counts.set((slot.moves(), counts));
        counts
    }

    #[cold]
    fn claim(&self) -> Option<&'static Slot> {
        let slot = REGISTRY.claim()?;
        self.slot.set(slot);
        // On some systems the next line allocates, hence comes back here.
        let _ = END.try_with(|_| ());
        Some(slot)
    }
}

/// Counts a call of `alloc` or `alloc_zeroed` that gave `ptr`, and passes that on.
#[inline(always)]
pub(super) fn allocated(ptr: *mut u8, doubled: usize) -> *mut u8 {
    if !ptr.is_null() && LOCAL.with(|local| local.slot().take_alloc(doubled)) {
        return ptr;
    }
    allocated_slowly(ptr, doubled)
}

/// Counts a call of `dealloc`, unless there is too little room: then `deallocated_settling` is due.
#[inline(always)]
pub(super) fn deallocated(size: usize) -> bool {
    LOCAL.with(|local| local.slot().take_dealloc(size))
}

/// Counts a call of `realloc`, unless there is too little room: then `reallocated_settling` is due.
#[inline(always)]
pub(super) fn reallocated(old: usize, new: usize) -> bool {
    LOCAL.with(|local| local.slot().take_realloc(old, new))
}

/// Takes back what `reallocated` has counted, for the call gave null, and passes that on.
#[cold]
#[inline(never)]
pub(super) fn not_reallocated(old: usize, new: usize) -> *mut u8 {
    taking_back(|slot| slot.uncount_realloc(old, new));
    failed()
}

#[cold]
#[inline(never)]
fn failed() -> *mut u8 {
    REGISTRY.failures.fetch_add(1, Relaxed);
    ptr::null_mut()
}

/// One way out of the hot path for both reasons.
#[cold]
#[inline(never)]
fn allocated_slowly(ptr: *mut u8, doubled: usize) -> *mut u8 {
    if ptr.is_null() {
        return failed();
    }
    let beforehand = beforehand(|slot| slot.beforehand_alloc(doubled));
    settling(doubled.div_ceil(2) as isize, |slot, writer| slot.count_alloc(doubled, beforehand, writer));
    ptr
}

#[cold]
#[inline(never)]
pub(super) fn deallocated_settling(size: usize) {
    let beforehand = beforehand(|slot| slot.beforehand_dealloc(size));
    settling((size as isize).wrapping_neg(), |slot, writer| slot.count_dealloc(size, beforehand, writer));
}

/// Does and counts a call of `realloc`, which `reallocated` may have tried to count.
#[cold]
#[inline(never)]
pub(super) fn reallocated_settling(
    tried: bool,
    call: impl FnOnce() -> *mut u8,
    old: usize,
    new: usize,
) -> *mut u8 {
    let beforehand =
        if tried { beforehand(|slot| slot.beforehand_realloc(old, new)) } else { Beforehand::default() };
    let ptr = call();
    if ptr.is_null() {
        taking_back(|slot| slot.uncount(beforehand));
        return failed();
    }
    let change = (new as isize).wrapping_sub(old as isize);
    settling(change, |slot, writer| slot.count_realloc(old, new, beforehand, writer));
    ptr
}

/// What the hot path has counted of a call that there was too little room for.
fn beforehand(of: impl FnOnce(&Slot) -> Beforehand) -> Beforehand {
    match LOCAL.with(Local::own) {
        Some(slot) => of(slot),
        None => {
            NOBODYS.close();
            Beforehand::default()
        }
    }
}

/// Counts, and tells the peak.
fn settling(change: isize, count: impl Fn(&Slot, Writer)) {
    match LOCAL.with(Local::own_or_new) {
        Some(slot) => {
            count(slot, Writer::Owner);
            REGISTRY.peak.publish(slot, LEAST);
        }
        None => {
            count(&REGISTRY.rest, Writer::Anyone);
            REGISTRY.peak.add(change);
        }
    }
}

/// Takes back what was counted in the thread's slot, if it has one.
fn taking_back(uncount: impl FnOnce(&Slot)) {
    if let Some(slot) = LOCAL.with(Local::own) {
        uncount(slot);
        REGISTRY.peak.publish(slot, LEAST);
    }
}

/// The calling thread's own counters. Zeros past its destructors.
pub(super) fn own_totals() -> Totals {
    LOCAL.with(Local::own_or_new).map(Slot::totals).unwrap_or_default()
}

#[inline]
pub(super) fn thread_counts() -> ThreadCounts {
    LOCAL.with(|local| {
        let (moves, counts) = local.counts.get();
        match local.own() {
            // To sum the classes up is the dear part, and mostly nothing was allocated since the last time.
            Some(slot) if slot.moves() == moves => counts,
            _ => local.count_again(),
        }
    })
}

pub(super) fn totals() -> Totals {
    REGISTRY.totals()
}
