//! The slots of the counting allocator.

mod atomic {
    pub(super) use loom::sync::atomic::{
        AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence,
    };

    macro_rules! constructor {
        ($($function:tt)*) => { pub(super) $($function)* };
    }
    pub(super) use constructor;

    pub(super) fn zeros<const N: usize>() -> [AtomicU64; N] {
        std::array::from_fn(|_| AtomicU64::new(0))
    }

    /// Without size classes, since each counter multiplies the orders to try.
    pub(super) const POWERS: usize = 1;
}
#[path = "../src/count/allocator/countdown.rs"]
mod countdown;
#[path = "../src/count/allocator/peak.rs"]
mod peak;
#[path = "../src/count/allocator/registry.rs"]
mod registry;
#[path = "../src/count/allocator/sampler.rs"]
mod sampler;
#[path = "../src/count/allocator/slot.rs"]
mod slot;
#[path = "../src/count/allocator/totals.rs"]
mod totals;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use countdown::{Countdown, take};
use registry::Registry;
use slot::Writer::{Anyone, Owner};
use slot::{AlreadyCounted, Slot, doubled};
use totals::Totals;

/// Counts as the slot's owner does, without the peak.
fn alloc(slot: &Slot, size: usize) {
    let doubled = doubled(size);
    if !slot.take_alloc(doubled) {
        slot.count_alloc(doubled, slot.already_counted_alloc(doubled), Owner);
    }
}

fn dealloc(slot: &Slot, size: usize) {
    if !slot.take_dealloc(size) {
        slot.count_dealloc(size, slot.already_counted_dealloc(size), Owner);
    }
}

fn realloc(slot: &Slot, old: usize, new: usize) {
    if !slot.take_realloc(old, new) {
        slot.count_realloc(old, new, slot.already_counted_realloc(old, new), Owner);
    }
}

fn failed_realloc(slot: &Slot, old: usize, new: usize) {
    if slot.take_realloc(old, new) {
        slot.untake_realloc(old, new);
    } else {
        slot.uncount_realloc(slot.already_counted_realloc(old, new));
    }
}

fn assert_laws(totals: &Totals) {
    assert!(totals.deallocated <= totals.allocated, "{totals:?}");
    assert!(totals.deallocations <= totals.allocations(), "{totals:?}");
    assert!(totals.peak >= totals.used(), "{totals:?}");
}

/// Tries only the orders with a limited number of interruptions, if all orders are too many.
fn check_up_to(interruptions: usize, check: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(interruptions);
    model.check(check);
}

#[test]
fn slots_are_reused_without_losing_a_count() {
    check_up_to(2, || {
        let registry = Arc::new(Registry::new());
        let live = |registry: Arc<Registry>| {
            move || {
                let slot = registry.claim().unwrap();
                alloc(slot, 10);
                dealloc(slot, 10);
                registry.release(slot);
            }
        };
        let threads =
            [thread::spawn(live(Arc::clone(&registry))), thread::spawn(live(Arc::clone(&registry)))];
        live(Arc::clone(&registry))();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let totals = registry.totals();
        assert_eq!((totals.allocated, totals.deallocated), (30, 30));
        assert_eq!((totals.allocations(), totals.deallocations), (3, 3));
        assert!(registry.len() <= 3);

        // All threads have ended, so the next one needs no new slot.
        let slots = registry.len();
        live(Arc::clone(&registry))();
        assert_eq!(registry.len(), slots);
    });
}

#[test]
fn a_reader_never_sees_more_freed_than_allocated() {
    loom::model(|| {
        let registry = Arc::new(Registry::new());
        let given = Arc::new(AtomicBool::new(false));
        let giver = thread::spawn({
            let (registry, given) = (Arc::clone(&registry), Arc::clone(&given));
            move || {
                let slot = registry.claim().unwrap();
                alloc(slot, 100);
                realloc(slot, 100, 40);
                failed_realloc(slot, 40, 7);
                given.store(true, Ordering::Release);
            }
        });
        let taker = thread::spawn({
            let (registry, given) = (Arc::clone(&registry), Arc::clone(&given));
            move || {
                let slot = registry.claim().unwrap();
                if given.load(Ordering::Acquire) {
                    dealloc(slot, 40);
                }
                registry.release(slot);
            }
        });
        assert_laws(&registry.totals());
        giver.join().unwrap();
        taker.join().unwrap();
        let totals = registry.totals();
        assert_laws(&totals);
        assert!(matches!((totals.used(), totals.live()), (40, 1) | (0, 0)));
    });
}

#[test]
fn threads_without_a_slot_share_one() {
    check_up_to(3, || {
        let registry = Arc::new(Registry::new());
        let thread = thread::spawn({
            let registry = Arc::clone(&registry);
            move || {
                registry.rest.count_alloc(doubled(5), AlreadyCounted::default(), Anyone);
                registry.peak.add(5);
                registry.rest.count_dealloc(5, AlreadyCounted::default(), Anyone);
                registry.peak.add(-5);
            }
        });
        registry.rest.count_alloc(doubled(3), AlreadyCounted::default(), Anyone);
        registry.peak.add(3);
        assert_laws(&registry.totals());
        thread.join().unwrap();
        let totals = registry.totals();
        assert_eq!((totals.allocated, totals.deallocated, totals.used()), (8, 5, 3));
        assert!((5..=8).contains(&totals.peak));
    });
}

/// A reader meets an owner that uses up its grant and renews it.
#[test]
fn a_countdown_s_total_is_right_at_every_moment() {
    check_up_to(3, || {
        let countdown = Arc::new(Countdown::new());
        countdown.add(0, |_| 10);
        let owner = thread::spawn({
            let countdown = Arc::clone(&countdown);
            move || {
                // SAFETY:
                // * A countdown lies at its own beginning.
                let take = |amount| unsafe { take::<_, 0>(&*countdown, amount) };
                assert!(take(7));
                // Of this, 3 come first.
                assert!(!take(6));
                assert_eq!(countdown.drain(6), 3);
                // A grant of another size: the next sample is due after 5.
                countdown.add(6 - 3, |_| 5);
                assert!(take(4));
            }
        });
        // On the thread that is started last: the model checker lets only later threads read between a load and a store
        // of the owner.
        let reader = thread::spawn({
            let countdown = Arc::clone(&countdown);
            move || {
                let totals = [(); 2].map(|()| countdown.total());
                assert!(totals.iter().all(|total| [0, 7, 10, 13, 17].contains(total)), "{totals:?}");
                assert!(totals.is_sorted(), "{totals:?}");
            }
        });
        owner.join().unwrap();
        reader.join().unwrap();
        assert_eq!(countdown.total(), 17);
    });
}
