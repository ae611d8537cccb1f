//! What a thread counts in.

use std::mem::offset_of;
use std::ptr;

use super::atomic::Ordering::{self, Acquire, Relaxed, Release};
use super::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, POWERS, constructor, zeros};
use super::countdown::{Countdown, take};
use super::peak::STEP;
use super::totals::{CLASSES, Totals};

/// The counters of one thread. Only the owner writes, so that adding is a load and a store; anyone may read.
///
/// Whoever sees that something was freed must see that it was allocated: hence what is freed is stored with `Release`
/// and read first. That keeps the bytes in use from falling below zero, and is free on x86-64.
///
/// Pairs of cache lines for itself. What others look at in passing, `owned` and `next`, lies behind the counters of the
/// largest allocations, which are rare.
#[repr(C, align(128))]
pub(super) struct Slot {
    /// Twice the bytes allocated, less one for each allocation: what the size class is found by, too, so that the hot path
    /// has one number to keep while the inner allocator works.
    doubled: Countdown<STEP>,
    deallocated: Countdown<STEP>,
    /// Bytes that reallocations gave.
    reallocated: Countdown<{ STEP / 2 }>,
    deallocations: AtomicU64,
    reallocations: AtomicU64,
    /// What the peak was last told of this slot's bytes in use.
    pub(super) published: AtomicIsize,
    /// Allocations of at most 2^index bytes, and more than half of that. They add up to the number of allocations,
    /// which therefore needs no counter of its own.
    powers: [AtomicU64; POWERS],
    pub(super) owned: AtomicBool,
    pub(super) next: AtomicPtr<Slot>,
}

/// Who adds to a slot.
#[derive(Clone, Copy)]
pub(super) enum Writer {
    /// The thread that owns it.
    Owner,
    /// Any thread, at any time.
    Anyone,
}

impl Writer {
    #[inline(always)]
    fn add(self, counter: &AtomicU64, amount: u64, ordering: Ordering) {
        match self {
            Writer::Owner => counter.store(counter.load(Relaxed).wrapping_add(amount), ordering),
            Writer::Anyone => _ = counter.fetch_add(amount, ordering),
        }
    }

    fn add_to<const STEP: usize>(self, countdown: &Countdown<STEP>, amount: u64) {
        match self {
            Writer::Owner => countdown.add(amount),
            Writer::Anyone => countdown.add_shared(amount),
        }
    }
}

/// The bytes of a call that the hot path has counted before it found that there are too many.
#[derive(Clone, Copy, Default)]
pub(super) struct Beforehand {
    new: u64,
    old: u64,
}

/// What an allocation adds to [`Slot::doubled`]. Never zero: a layout's size is at least 1 and fits an `isize`.
#[inline(always)]
pub(super) fn doubled(size: usize) -> usize {
    size.wrapping_mul(2).wrapping_sub(1)
}

/// The power of two that a size is rounded up to: 16 bytes are still 2^4.
#[inline(always)]
fn power(doubled: usize) -> usize {
    // Those that have more bits have no counter of their own.
    u32::try_from(doubled).unwrap_or(u32::MAX).checked_ilog2().unwrap_or(0) as usize
}

impl Slot {
    constructor! { fn new() -> Self {
        Slot::of(Countdown::new(), Countdown::new(), Countdown::new())
    } }

    // One that the hot path cannot count in.
    constructor! { fn closed() -> Self {
        Slot::of(Countdown::closed(), Countdown::closed(), Countdown::closed())
    } }

    constructor! { fn of(
        doubled: Countdown<STEP>,
        deallocated: Countdown<STEP>,
        reallocated: Countdown<{ STEP / 2 }>,
    ) -> Self {
        Slot {
            doubled,
            deallocated,
            reallocated,
            deallocations: AtomicU64::new(0),
            reallocations: AtomicU64::new(0),
            published: AtomicIsize::new(0),
            powers: zeros(),
            owned: AtomicBool::new(true),
            next: AtomicPtr::new(ptr::null_mut()),
        }
    } }

    /// Closes one again that the hot path may have tried to count in.
    pub(super) fn close(&self) {
        self.doubled.close();
        self.deallocated.close();
        self.reallocated.close();
    }

    // What the hot path does, on the thread that owns the slot. Where too little is left for a call, the call's number is not
    // counted, and what else was has to be asked for.

    #[inline(always)]
    pub(super) fn take_alloc(&self, doubled: usize) -> bool {
        // SAFETY: a countdown is there.
        let room = unsafe { take::<_, { offset_of!(Slot, doubled) }>(self, doubled) };
        if room {
            // The hot path is for sizes up to `STEP` and need not look at more bits.
            self.count_power(power(doubled as u32 as usize), Writer::Owner);
        }
        room
    }

    #[inline(always)]
    pub(super) fn take_dealloc(&self, size: usize) -> bool {
        // SAFETY: a countdown is there.
        let room = unsafe { take::<_, { offset_of!(Slot, deallocated) }>(self, size) };
        if room {
            Writer::Owner.add(&self.deallocations, 1, Release);
        }
        room
    }

    #[inline(always)]
    pub(super) fn take_realloc(&self, old: usize, new: usize) -> bool {
        // SAFETY: countdowns are there.
        let room = unsafe {
            take::<_, { offset_of!(Slot, reallocated) }>(self, new)
                && take::<_, { offset_of!(Slot, deallocated) }>(self, old)
        };
        if room {
            Writer::Owner.add(&self.reallocations, 1, Relaxed);
        }
        room
    }

    // And what has to be asked for then.

    pub(super) fn beforehand_alloc(&self, doubled: usize) -> Beforehand {
        Beforehand { new: self.doubled.forfeit(doubled), old: 0 }
    }

    pub(super) fn beforehand_dealloc(&self, size: usize) -> Beforehand {
        Beforehand { new: 0, old: self.deallocated.forfeit(size) }
    }

    pub(super) fn beforehand_realloc(&self, old: usize, new: usize) -> Beforehand {
        if self.reallocated.is_overdrawn() {
            Beforehand { new: self.reallocated.forfeit(new), old: 0 }
        } else {
            Beforehand { new: new as u64, old: self.deallocated.forfeit(old) }
        }
    }

    // What counts calls of any size, without what is counted already.

    pub(super) fn count_alloc(&self, doubled: usize, beforehand: Beforehand, writer: Writer) {
        writer.add_to(&self.doubled, (doubled as u64).wrapping_sub(beforehand.new));
        self.count_power(power(doubled), writer);
    }

    #[inline(always)]
    fn count_power(&self, power: usize, writer: Writer) {
        if let Some(counter) = self.powers.get(power.min(POWERS - 1)) {
            writer.add(counter, 1, Relaxed);
        }
    }

    pub(super) fn count_dealloc(&self, size: usize, beforehand: Beforehand, writer: Writer) {
        writer.add_to(&self.deallocated, (size as u64).wrapping_sub(beforehand.old));
        writer.add(&self.deallocations, 1, Release);
    }

    pub(super) fn count_realloc(&self, old: usize, new: usize, beforehand: Beforehand, writer: Writer) {
        writer.add_to(&self.reallocated, (new as u64).wrapping_sub(beforehand.new));
        writer.add_to(&self.deallocated, (old as u64).wrapping_sub(beforehand.old));
        writer.add(&self.reallocations, 1, Relaxed);
    }

    /// Takes back what was counted of a reallocation that failed.
    pub(super) fn uncount(&self, beforehand: Beforehand) {
        self.deallocated.add(beforehand.old.wrapping_neg());
        self.reallocated.add(beforehand.new.wrapping_neg());
    }

    /// Takes back one that `take_realloc` has counted.
    pub(super) fn uncount_realloc(&self, old: usize, new: usize) {
        self.uncount(Beforehand { new: new as u64, old: old as u64 });
        Writer::Owner.add(&self.reallocations, 1_u64.wrapping_neg(), Relaxed);
    }

    /// The owner's view: bytes allocated less bytes freed, negative where other threads' memory is freed.
    pub(super) fn used(&self) -> isize {
        self.allocated().wrapping_sub(self.deallocated.own_total()) as isize
    }

    /// The owner's view: bytes.
    pub(super) fn allocated(&self) -> u64 {
        bytes(self.doubled.own_total(), self.allocations(), self.reallocated.own_total())
    }

    /// The owner's view: moves with every byte that is allocated, and is quickly read.
    #[inline]
    pub(super) fn moves(&self) -> u64 {
        self.doubled.own_total().wrapping_add(self.reallocated.own_total())
    }

    pub(super) fn allocations(&self) -> u64 {
        self.powers.iter().fold(0, |sum, class| sum.wrapping_add(class.load(Relaxed)))
    }

    pub(super) fn add_freed(&self, totals: &mut Totals) {
        totals.deallocated = totals.deallocated.wrapping_add(self.deallocated.total());
        totals.deallocations = totals.deallocations.wrapping_add(self.deallocations.load(Acquire));
    }

    pub(super) fn add_others(&self, totals: &mut Totals) {
        let doubled = self.doubled.total();
        let mut allocations: u64 = 0;
        for (power, counter) in self.powers.iter().enumerate() {
            let count = counter.load(Relaxed);
            allocations = allocations.wrapping_add(count);
            if let Some(class) = totals.classes.get_mut(class_of(power)) {
                *class = class.wrapping_add(count);
            }
        }
        totals.allocated =
            totals.allocated.wrapping_add(bytes(doubled, allocations, self.reallocated.total()));
        totals.reallocations = totals.reallocations.wrapping_add(self.reallocations.load(Relaxed));
    }

    /// The owner's view.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.add_freed(&mut totals);
        self.add_others(&mut totals);
        totals
    }
}

/// The bytes that were allocated. Seen while the owner allocates, a number from between those before and after.
fn bytes(doubled: u64, allocations: u64, reallocated: u64) -> u64 {
    (doubled.wrapping_add(allocations) / 2).wrapping_add(reallocated)
}

/// Pairs of powers of two make the powers of four from 16 on.
fn class_of(power: usize) -> usize {
    power.div_ceil(2).saturating_sub(2).min(CLASSES - 1)
}
