//! The slots that threads count in, and the list that hands them out and sums them up.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

use super::atomic::Ordering::{self, Acquire, Relaxed, Release};
use super::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, AtomicUsize, POWERS, constructor, zeros};
use super::peak::{Peak, STEP};
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
    owned: AtomicBool,
    next: AtomicPtr<Slot>,
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
    /// `doubled` is that of a size and at most [`STEP`].
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

    /// Grows with every byte that is allocated, and is quickly read.
    #[inline]
    pub(super) fn moves(&self) -> u64 {
        self.doubled.load(Relaxed).wrapping_add(self.reallocated.load(Relaxed))
    }

    pub(super) fn allocations(&self) -> u64 {
        self.powers.iter().fold(0, |sum, class| sum.wrapping_add(class.load(Relaxed)))
    }

    fn add_freed(&self, totals: &mut Totals) {
        totals.deallocated = totals.deallocated.wrapping_add(self.deallocated.load(Acquire));
        totals.deallocations = totals.deallocations.wrapping_add(self.deallocations.load(Acquire));
    }

    fn add_others(&self, totals: &mut Totals) {
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

/// All slots there are. Slots are added and never removed: there are as many as there were threads at once.
pub(super) struct Registry {
    newest: AtomicPtr<Slot>,
    /// How many slots wait for an owner, at least: zero spares a new thread the search.
    idle: AtomicUsize,
    /// The slot that was given back last, the first one to ask for.
    recent: AtomicPtr<Slot>,
    /// For the threads that have no slot: past their destructors, or out of memory.
    pub(super) rest: Slot,
    /// How many allocations have failed, on all threads: too few for each to count its own.
    pub(super) failures: AtomicU64,
    pub(super) peak: Peak,
}

impl Registry {
    constructor! { fn new() -> Self {
        Registry {
            newest: AtomicPtr::new(ptr::null_mut()),
            idle: AtomicUsize::new(0),
            recent: AtomicPtr::new(ptr::null_mut()),
            rest: Slot::new(),
            failures: AtomicU64::new(0),
            peak: Peak::new(),
        }
    } }

    /// A slot for the calling thread alone, until it gives it back. None if there is no memory for one.
    pub(super) fn claim(&self) -> Option<&Slot> {
        self.reuse().or_else(|| self.grow())
    }

    /// Lets another thread go on counting in a slot.
    pub(super) fn give_back(&self, slot: &Slot) {
        self.peak.publish(slot, 1);
        self.idle.fetch_add(1, Relaxed);
        self.recent.store(ptr::from_ref(slot).cast_mut(), Release);
        // The next owner goes on from what this one wrote.
        slot.owned.store(false, Release);
    }

    fn reuse(&self) -> Option<&Slot> {
        if self.idle.load(Relaxed) == 0 {
            return None;
        }
        let take = |slot: &&Slot| !slot.owned.load(Relaxed) && !slot.owned.swap(true, Acquire);
        let slot = self.from(&self.recent).take(1).chain(self.from(&self.newest)).find(take)?;
        self.idle.fetch_sub(1, Relaxed);
        Some(slot)
    }

    /// Adds a slot, from memory that is not the counting allocator's own.
    fn grow(&self) -> Option<&Slot> {
        // SAFETY: the layout's size is not zero.
        let slot = unsafe { System.alloc(Layout::new::<Slot>()) }.cast::<Slot>();
        if slot.is_null() {
            return None;
        }
        // SAFETY: it was just allocated with the layout of a slot, and nobody else knows of it.
        unsafe { slot.write(Slot::new()) };
        // SAFETY: it holds a slot now, which is never freed.
        let slot = unsafe { &*slot };
        let mut next = self.newest.load(Relaxed);
        loop {
            slot.next.store(next, Relaxed);
            let this = ptr::from_ref(slot).cast_mut();
            match self.newest.compare_exchange_weak(next, this, Release, Relaxed) {
                Ok(_) => return Some(slot),
                Err(newer) => next = newer,
            }
        }
    }

    /// A slot and all that are older.
    fn from(&self, first: &AtomicPtr<Slot>) -> impl Iterator<Item = &Slot> {
        let slot = |at: &AtomicPtr<Slot>| {
            // SAFETY: a pointer in the list is null or that of a slot that was written before it was published, with
            // `Release` where this acquires it, and is never freed.
            unsafe { at.load(Acquire).as_ref() }
        };
        std::iter::successors(slot(first), move |this: &&Slot| slot(&this.next))
    }

    fn all(&self) -> impl Iterator<Item = &Slot> {
        std::iter::once(&self.rest).chain(self.from(&self.newest))
    }

    /// The sum over all slots.
    ///
    /// What is freed is read first (see [`Slot`]), so what comes and goes meanwhile appears to be in use. That is next to
    /// nothing, unless the reading thread is interrupted: then it reads again, so that the peak is not mistaken.
    pub(super) fn totals(&self) -> Totals {
        let near = (STEP * self.all().count()) as u64;
        let mut freed = self.freed();
        let mut totals = freed;
        for _ in 0..10 {
            totals = freed;
            // A slot that was added since can only have been allocated from.
            self.all().for_each(|slot| slot.add_others(&mut totals));
            freed = self.freed();
            if freed.deallocated.wrapping_sub(totals.deallocated) <= near {
                break;
            }
        }
        totals.failures = self.failures.load(Relaxed);
        totals.peak = self.peak.raise(totals.used() as isize) as u64;
        totals
    }

    fn freed(&self) -> Totals {
        let mut totals = Totals::default();
        self.all().for_each(|slot| slot.add_freed(&mut totals));
        totals
    }

    /// How many slots there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.from(&self.newest).count()
    }
}
