//! The list of slots: claims and releases them, and sums them up.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::atomic::{AtomicPtr, AtomicU64, AtomicUsize, constructor};
use super::peak::{Peak, STEP};
use super::slot::Slot;
use super::totals::Totals;

/// All slots. Slots are added and never removed: there are as many as there were threads alive at once.
pub(super) struct Registry {
    newest: AtomicPtr<Slot>,
    /// An upper bound of the slots without an owner: zero spares a new thread the search.
    idle: AtomicUsize,
    /// The slot that was released last: the first one to try.
    recent: AtomicPtr<Slot>,
    /// The slot of threads that have none: past their destructors, or out of memory.
    pub(super) rest: Slot,
    /// Failed allocations of all threads: too rare for a counter in each slot.
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

    /// Returns a slot for the calling thread alone, until it releases it. `None` if there is no memory for one.
    pub(super) fn claim(&self) -> Option<&Slot> {
        self.reuse().or_else(|| self.grow())
    }

    /// Lets another thread continue the counters of a slot.
    pub(super) fn release(&self, slot: &Slot) {
        slot.publish(&self.peak, 1);
        self.idle.fetch_add(1, Relaxed);
        self.recent.store(ptr::from_ref(slot).cast_mut(), Release);
        // The next owner continues what this one wrote.
        slot.is_owned.store(false, Release);
    }

    fn reuse(&self) -> Option<&Slot> {
        if self.idle.load(Relaxed) == 0 {
            return None;
        }
        let take = |slot: &&Slot| !slot.is_owned.load(Relaxed) && !slot.is_owned.swap(true, Acquire);
        let slot = self.from(&self.recent).take(1).chain(self.from(&self.newest)).find(take)?;
        self.idle.fetch_sub(1, Relaxed);
        Some(slot)
    }

    /// Adds a slot, in memory that the counting allocator does not count.
    fn grow(&self) -> Option<&Slot> {
        // SAFETY:
        // * The size of the layout is not zero.
        let slot = unsafe { System.alloc(Layout::new::<Slot>()) }.cast::<Slot>();
        if slot.is_null() {
            return None;
        }
        // SAFETY:
        // * The memory was just allocated with the layout of a slot, and no other thread has its address.
        unsafe { slot.write(Slot::new()) };
        // SAFETY:
        // * The memory holds a slot now and is never freed.
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

    /// Returns a slot and all older ones.
    fn from(&self, first: &AtomicPtr<Slot>) -> impl Iterator<Item = &Slot> {
        let slot = |at: &AtomicPtr<Slot>| {
            // SAFETY:
            // * A pointer in the list is null or points to a slot, which is never freed.
            // * The slot was written before its pointer was stored with `Release`, and this load acquires it.
            unsafe { at.load(Acquire).as_ref() }
        };
        std::iter::successors(slot(first), move |this: &&Slot| slot(&this.next))
    }

    fn all(&self) -> impl Iterator<Item = &Slot> {
        std::iter::once(&self.rest).chain(self.from(&self.newest))
    }

    /// Returns the sum of all slots.
    ///
    /// Deallocations are read first (see [`Slot`]), so that memory which is allocated and freed meanwhile appears to be in
    /// use. That is next to nothing, unless the reading thread is interrupted: then it reads again, so that the peak stays
    /// right.
    pub(super) fn totals(&self) -> Totals {
        let near = (STEP * self.all().count()) as u64;
        let mut freed = self.freed();
        let mut totals = freed;
        for _ in 0..10 {
            totals = freed;
            // A slot that was added since can only add allocations.
            self.all().for_each(|slot| slot.add_others(&mut totals));
            freed = self.freed();
            if freed.deallocated.wrapping_sub(totals.deallocated) <= near {
                break;
            }
        }
        totals.failures = self.failures.load(Relaxed);
        // With 32-bit addresses, more may be in use than the peak can hold.
        let used = totals.used();
        totals.peak = used.max(self.peak.raise(isize::try_from(used).unwrap_or(isize::MAX)) as u64);
        totals
    }

    fn freed(&self) -> Totals {
        let mut totals = Totals::default();
        self.all().for_each(|slot| slot.add_freed(&mut totals));
        totals
    }

    /// Returns the number of slots.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.from(&self.newest).count()
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::super::slot::{AlreadyCounted, Writer::Owner, doubled};
    use super::*;

    #[test]
    fn a_slot_takes_less_than_a_kibibyte() {
        assert!(size_of::<Slot>() <= 1024);
    }

    #[test]
    fn there_are_as_many_slots_as_owners_at_once() {
        static REGISTRY: Registry = Registry::new();
        let registry = &REGISTRY;
        for _ in 0..3 {
            let held: Vec<_> = (0..100).map(|_| registry.claim().unwrap()).collect();
            held.iter().for_each(|slot| slot.count_alloc(doubled(10), AlreadyCounted::default(), Owner));
            assert_eq!(registry.len(), 100);
            held.iter().for_each(|slot| registry.release(slot));
        }
        assert_eq!(registry.totals().allocated, 3_000);
        assert_eq!(registry.totals().peak, 3_000);
    }

    #[test]
    fn threads_that_come_and_go_at_once_need_no_more_slots_than_there_are_threads() {
        static REGISTRY: Registry = Registry::new();
        let registry = &REGISTRY;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let slot = registry.claim().unwrap();
                        slot.count_alloc(doubled(8), AlreadyCounted::default(), Owner);
                        slot.count_dealloc(8, AlreadyCounted::default(), Owner);
                        registry.release(slot);
                    }
                });
            }
        });
        // One thread may release while another searches: each counts as two for a moment.
        assert!(registry.len() <= 8, "{} slots", registry.len());
        let totals = registry.totals();
        assert_eq!((totals.allocations(), totals.deallocations), (40_000, 40_000));
        assert_eq!((totals.allocated, totals.used()), (320_000, 0));
    }
}
