//! The calling thread's slot: the hot path, and what happens every 32 KiB.

use std::cell::Cell;
use std::hint::assert_unchecked;
use std::ptr;

use super::atomic::Ordering::Relaxed;
use super::peak::STEP;
use super::registry::Registry;
use super::slot::{Add, Slot, own, shared};
use super::{ThreadCounts, Totals};

static REGISTRY: Registry = Registry::new();

/// What a thread needs to count. Without a destructor, so that it can be used at any time.
struct Local {
    /// How many more bytes may be allocated, which count twice, and freed before the peak must be looked at. Zero as
    /// long as there is no slot, so that the hot path has one thing to test. Never more than `STEP` when the hot path
    /// begins.
    room: Cell<usize>,
    /// Null, or this thread's alone.
    slot: Cell<*const Slot>,
    /// The thread is past its destructors: what it still does is counted in the rest.
    ended: Cell<bool>,
    /// The last answer of `thread_counts`, and what `Slot::moves` was then.
    counts: Cell<(u64, ThreadCounts)>,
}

thread_local! {
    static LOCAL: Local = const {
        Local {
            room: Cell::new(0),
            slot: Cell::new(ptr::null()),
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
            local.room.set(0);
            // SAFETY: null, or a slot, which is never freed.
            if let Some(slot) = unsafe { local.slot.replace(ptr::null()).as_ref() } {
                REGISTRY.give_back(slot);
            }
        });
    }
}

impl Local {
    /// The thread's slot, if there is room for so many bytes before the peak must be looked at.
    #[inline(always)]
    fn slot_with_room(&self, bytes: usize) -> Option<&'static Slot> {
        let (room, short) = self.room.get().overflowing_sub(bytes);
        self.room.set(room);
        if short {
            return None;
        }
        // SAFETY: there is room for at most `STEP` bytes, and for none without a slot. A slot is never freed.
        unsafe {
            assert_unchecked(bytes <= STEP);
            let slot = self.slot.get();
            assert_unchecked(!slot.is_null());
            Some(&*slot)
        }
    }

    /// The thread's slot, if it has not ended.
    fn slot(&self) -> Option<&'static Slot> {
        // SAFETY: null, or a slot, which is never freed.
        match unsafe { self.slot.get().as_ref() } {
            None if !self.ended.get() => self.claim(),
            slot => slot,
        }
    }

    /// The answer of `thread_counts` where it is another one than the last time.
    #[inline(never)]
    fn count_again(&self) -> ThreadCounts {
        let Some(slot) = self.slot() else { return ThreadCounts::default() };
        let counts = ThreadCounts { allocated: slot.allocated(), allocations: slot.allocations() };
        self.counts.set((slot.moves(), counts));
        counts
    }

    #[cold]
    fn claim(&self) -> Option<&'static Slot> {
        let slot = REGISTRY.claim()?;
        self.slot.set(slot);
        // On some systems the next line allocates, hence comes back here.
        self.room.set(STEP);
        let _ = END.try_with(|_| ());
        Some(slot)
    }
}

/// Counts a call of `alloc` or `alloc_zeroed` that gave `ptr`, and passes that on.
#[inline(always)]
pub(super) fn allocated(ptr: *mut u8, doubled: usize) -> *mut u8 {
    if !ptr.is_null()
        && let Some(slot) = LOCAL.with(|local| local.slot_with_room(doubled))
    {
        // SAFETY: there was room, and never is for more than `STEP`.
        unsafe { slot.count_small_alloc(doubled) };
        return ptr;
    }
    allocated_slowly(ptr, doubled)
}

/// Counts a call of `dealloc`, unless there is no room: then nothing is counted and `deallocated_settling` is due.
#[inline(always)]
pub(super) fn deallocated(size: usize) -> bool {
    let slot = LOCAL.with(|local| local.slot_with_room(size));
    if let Some(slot) = slot {
        slot.count_dealloc(size, own);
    }
    slot.is_some()
}

/// Counts a call of `realloc`, unless there is no room: then nothing is counted and `reallocated_settling` is due.
#[inline(always)]
pub(super) fn reallocated(old: usize, new: usize) -> bool {
    // Both fit an `isize`.
    let slot = LOCAL.with(|local| local.slot_with_room(old.wrapping_add(new)));
    if let Some(slot) = slot {
        slot.count_realloc(old, new, own);
    }
    slot.is_some()
}

/// Takes back what `reallocated` has counted, for the call gave null, and passes that on.
#[cold]
#[inline(never)]
pub(super) fn not_reallocated(old: usize, new: usize) -> *mut u8 {
    // There was room, hence a slot.
    if let Some(slot) = LOCAL.with(Local::slot) {
        slot.uncount_realloc(old, new);
    }
    failed()
}

#[cold]
#[inline(never)]
fn failed() -> *mut u8 {
    shared(&REGISTRY.failures, 1, Relaxed);
    ptr::null_mut()
}

/// One way out of the hot path for both reasons.
#[cold]
#[inline(never)]
fn allocated_slowly(ptr: *mut u8, doubled: usize) -> *mut u8 {
    if ptr.is_null() {
        return failed();
    }
    let size = doubled.div_ceil(2);
    settling(size as isize, |slot, add| slot.count_alloc(size, add));
    ptr
}

#[cold]
#[inline(never)]
pub(super) fn deallocated_settling(size: usize) {
    settling((size as isize).wrapping_neg(), |slot, add| slot.count_dealloc(size, add));
}

/// Does and counts a call of `realloc`.
#[cold]
#[inline(never)]
pub(super) fn reallocated_settling(call: impl FnOnce() -> *mut u8, old: usize, new: usize) -> *mut u8 {
    // It may be less than nothing, and the call may fail.
    LOCAL.with(|local| local.room.set(0));
    let ptr = call();
    if ptr.is_null() {
        return failed();
    }
    let change = (new as isize).wrapping_sub(old as isize);
    settling(change, |slot, add| slot.count_realloc(old, new, add));
    ptr
}

/// Counts, and tells the peak.
fn settling(change: isize, count: impl Fn(&Slot, Add)) {
    LOCAL.with(|local| {
        local.room.set(0);
        match local.slot() {
            Some(slot) => {
                count(slot, own);
                REGISTRY.peak.publish(slot, STEP);
                local.room.set(STEP);
            }
            None => {
                count(&REGISTRY.rest, shared);
                REGISTRY.peak.add(change);
            }
        }
    });
}

/// The calling thread's own counters. Zeros past its destructors.
pub(super) fn own_totals() -> Totals {
    LOCAL.with(Local::slot).map(Slot::totals).unwrap_or_default()
}

#[inline]
pub(super) fn thread_counts() -> ThreadCounts {
    LOCAL.with(|local| {
        let (moves, counts) = local.counts.get();
        // SAFETY: null, or a slot, which is never freed.
        match unsafe { local.slot.get().as_ref() } {
            // To sum the classes up is the dear part, and mostly nothing was allocated since the last time.
            Some(slot) if slot.moves() == moves => counts,
            _ => local.count_again(),
        }
    })
}

pub(super) fn totals() -> Totals {
    REGISTRY.totals()
}
