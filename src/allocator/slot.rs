//! What a thread counts in.

use std::ptr;

use super::atomic::Ordering::{self, Acquire, Relaxed, Release};
use super::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, POWERS, constructor, zeros};
use super::totals::Totals;

/// The counters of one thread. Only the owner writes, so that adding is a load and a store; anyone may read.
///
/// Whoever sees that something was freed must see that it was allocated: hence what is freed is stored with `Release`
/// and read first. That keeps the bytes in use from falling below zero, and is free on x86-64.
///
/// Two pairs of cache lines for itself. What others look at in passing, `owned` and `next`, lies beside the counters
/// of the largest allocations, which are rare.
#[repr(C, align(128))]
pub(super) struct Slot {
    /// Twice the bytes allocated, less one for each allocation: what the size class is found by, too, so that the hot path
    /// has one number to keep while the inner allocator works.
    doubled: AtomicU64,
    /// Bytes that reallocations gave.
    reallocated: AtomicU64,
    deallocated: AtomicU64,
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

/// How to add to a counter: [`own`] or [`shared`].
pub(super) type Add = fn(&AtomicU64, u64, Ordering);

/// Adds to a counter that no other thread writes.
#[inline(always)]
pub(super) fn own(counter: &AtomicU64, amount: u64, ordering: Ordering) {
    counter.store(counter.load(Relaxed).wrapping_add(amount), ordering);
}

/// Adds to a counter that other threads write too.
pub(super) fn shared(counter: &AtomicU64, amount: u64, ordering: Ordering) {
    counter.fetch_add(amount, ordering);
}

/// What an allocation adds to [`Slot::doubled`]. Never zero: a layout's size is at least 1 and fits an `isize`.
#[inline(always)]
pub(super) fn doubled(size: usize) -> usize {
    size.wrapping_mul(2).wrapping_sub(1)
}

/// The power of two that a size is rounded up to: 16 bytes are still 2^4.
#[inline(always)]
fn power(doubled: usize) -> usize {
    doubled.checked_ilog2().unwrap_or(0) as usize
}

impl Slot {
    constructor! { fn new() -> Self {
        Slot {
            doubled: AtomicU64::new(0),
            reallocated: AtomicU64::new(0),
            deallocated: AtomicU64::new(0),
            deallocations: AtomicU64::new(0),
            reallocations: AtomicU64::new(0),
            published: AtomicIsize::new(0),
            powers: zeros(),
            owned: AtomicBool::new(true),
            next: AtomicPtr::new(ptr::null_mut()),
        }
    } }

    /// Counts an allocation of any size.
    pub(super) fn count_alloc(&self, size: usize, add: Add) {
        let doubled = doubled(size);
        add(&self.doubled, doubled as u64, Relaxed);
        if let Some(counter) = self.powers.get(power(doubled).min(POWERS - 1)) {
            add(counter, 1, Relaxed);
        }
    }

    /// Counts an allocation by the slot's owner, without looking whether it is larger than all size classes.
    ///
    /// # Safety
    /// `doubled` is that of a size and at most [`STEP`](super::peak::STEP).
    #[inline(always)]
    pub(super) unsafe fn count_small_alloc(&self, doubled: usize) {
        own(&self.doubled, doubled as u64, Relaxed);
        // SAFETY: a power for every size up to `STEP` is there, and it is not zero.
        own(unsafe { self.powers.get_unchecked(power(doubled)) }, 1, Relaxed);
    }

    #[inline(always)]
    pub(super) fn count_dealloc(&self, size: usize, add: Add) {
        add(&self.deallocated, size as u64, Release);
        add(&self.deallocations, 1, Release);
    }

    #[inline(always)]
    pub(super) fn count_realloc(&self, old: usize, new: usize, add: Add) {
        add(&self.reallocated, new as u64, Relaxed);
        add(&self.deallocated, old as u64, Release);
        add(&self.reallocations, 1, Relaxed);
    }

    /// Takes back what the slot's owner counted with the same numbers.
    pub(super) fn uncount_realloc(&self, old: usize, new: usize) {
        own(&self.deallocated, (old as u64).wrapping_neg(), Release);
        own(&self.reallocated, (new as u64).wrapping_neg(), Relaxed);
        own(&self.reallocations, 1_u64.wrapping_neg(), Relaxed);
    }

    /// Bytes allocated less bytes freed: negative where other threads' memory is freed.
    pub(super) fn used(&self) -> isize {
        self.allocated().wrapping_sub(self.deallocated.load(Relaxed)) as isize
    }

    /// Bytes. While the owner allocates, a number from between those before and after.
    pub(super) fn allocated(&self) -> u64 {
        let doubled = self.doubled.load(Relaxed);
        self.bytes(doubled, self.allocations())
    }

    fn bytes(&self, doubled: u64, allocations: u64) -> u64 {
        (doubled.wrapping_add(allocations) / 2).wrapping_add(self.reallocated.load(Relaxed))
    }

    /// Moves with every byte that is allocated, and is quickly read.
    #[inline]
    pub(super) fn moves(&self) -> u64 {
        self.doubled.load(Relaxed).wrapping_add(self.reallocated.load(Relaxed))
    }

    pub(super) fn allocations(&self) -> u64 {
        self.powers.iter().fold(0, |sum, class| sum.wrapping_add(class.load(Relaxed)))
    }

    pub(super) fn add_freed(&self, totals: &mut Totals) {
        totals.deallocated = totals.deallocated.wrapping_add(self.deallocated.load(Acquire));
        totals.deallocations = totals.deallocations.wrapping_add(self.deallocations.load(Acquire));
    }

    pub(super) fn add_others(&self, totals: &mut Totals) {
        let doubled = self.doubled.load(Relaxed);
        let mut allocations: u64 = 0;
        for (power, counter) in self.powers.iter().enumerate() {
            let count = counter.load(Relaxed);
            allocations = allocations.wrapping_add(count);
            if let Some(class) = totals.classes.get_mut(class_of(power)) {
                *class = class.wrapping_add(count);
            }
        }
        totals.allocated = totals.allocated.wrapping_add(self.bytes(doubled, allocations));
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

/// Pairs of powers of two make the powers of four from 16 on.
const fn class_of(power: usize) -> usize {
    if power < 4 { 0 } else { power.div_ceil(2) - 2 }
}
