//! The list of slots, which hands them out and sums them up.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::atomic::{AtomicPtr, AtomicU64, AtomicUsize, constructor};
use super::peak::{Peak, STEP};
use super::slot::Slot;
use super::totals::Totals;

/// All slots there are. Slots are added and never removed: there are as many as there were threads at once.
pub(super) struct Registry {
    newest: AtomicPtr<Slot>,
    /// How many slots wait for an owner, at most: zero spares a new thread the search.
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
        // Where addresses have 32 bits, more may be in use than the peak can tell.
        let used = totals.used();
        totals.peak = used.max(self.peak.raise(isize::try_from(used).unwrap_or(isize::MAX)) as u64);
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

#[cfg(all(test, not(model)))]
mod tests {
    use super::super::slot::{Beforehand, Writer::Owner, doubled};
    use super::*;

    #[test]
    fn a_live_thread_takes_less_than_a_kibibyte() {
        assert!(size_of::<Slot>() <= 1024);
    }

    #[test]
    fn there_are_as_many_slots_as_owners_at_once() {
        static REGISTRY: Registry = Registry::new();
        let registry = &REGISTRY;
        for _ in 0..3 {
            let held: Vec<_> = (0..100).map(|_| registry.claim().unwrap()).collect();
            held.iter().for_each(|slot| slot.count_alloc(doubled(10), Beforehand::default(), Owner));
            assert_eq!(registry.len(), 100);
            held.iter().for_each(|slot| registry.give_back(slot));
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
                        slot.count_alloc(doubled(8), Beforehand::default(), Owner);
                        slot.count_dealloc(8, Beforehand::default(), Owner);
                        registry.give_back(slot);
                    }
                });
            }
        });
        // While one gives back, another may already be looking: each counts for a moment as two.
        assert!(registry.len() <= 8, "{} slots", registry.len());
        let totals = registry.totals();
        assert_eq!((totals.allocations(), totals.deallocations), (40_000, 40_000));
        assert_eq!((totals.allocated, totals.used()), (320_000, 0));
    }
}
