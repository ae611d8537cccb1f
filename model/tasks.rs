//! The counters of the named tasks under the model checker.

mod names {
    /// The real one is made by a list of names, which is no part of the model.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct NameId(usize);

    impl NameId {
        pub(crate) fn new(index: usize) -> Self {
            NameId(index)
        }

        pub(crate) fn index(self) -> usize {
            self.0
        }
    }
}
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};

    macro_rules! constructor {
        ($($function:tt)*) => { pub(crate) $($function)* };
    }
    pub(super) use constructor;
}
#[path = "../src/count/task/counters.rs"]
mod counters;

use counters::{Event, Slab, Slabs, Tally, Totals};
use loom::sync::Arc;
use loom::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use loom::thread;

use names::NameId;

const NAME: usize = 0;

fn tally(slab: &Slab) -> Tally<'_> {
    slab.first_tally(NameId::new(NAME)).unwrap()
}

/// A thread is interrupted at most three times where it need not wait: without a bound, it would take hours.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn sum(slabs: &Slabs) -> Totals {
    let mut totals = [Totals::default()];
    slabs.sum(&mut totals);
    totals[NAME]
}

/// Adds up on a thread of its own, to be started last: the checker remembers who touched a counter last, and where
/// a writer has read it before it writes, it does not think of letting others read in between, unless they come
/// after.
fn read(slabs: &Arc<Slabs>, look: impl FnOnce(Totals) + Send + 'static) -> thread::JoinHandle<()> {
    let slabs = Arc::clone(slabs);
    thread::spawn(move || look(sum(&slabs)))
}

/// A task is spawned on one thread and ends on another while a third adds up.
#[test]
fn no_end_is_seen_without_its_spawn() {
    check(|| {
        let slabs = Arc::new(Slabs::new());
        let handed_over = Arc::new(AtomicBool::new(false));
        // Both have counted before: what joins meanwhile waits for the sum.
        let [spawner, runner] = [(); 2].map(|()| tally(slabs.join()));
        let spawner = thread::spawn({
            let handed_over = Arc::clone(&handed_over);
            move || {
                spawner.add(Event::Spawned, 1);
                handed_over.store(true, Release);
            }
        });
        let runner = thread::spawn(move || {
            let runs = handed_over.load(Acquire);
            if runs {
                runner.add(Event::Completed, 1);
            }
            u64::from(runs)
        });
        let reader = read(&slabs, |total| assert!(total.of(Event::Spawned) >= total.ended(), "{total:?}"));
        spawner.join().unwrap();
        let ended = runner.join().unwrap();
        reader.join().unwrap();
        let total = sum(&slabs);
        assert_eq!((total.of(Event::Spawned), total.ended()), (1, ended));
    });
}

/// Threads come and go while the sum is taken: no count is lost, none comes twice, none goes back.
#[test]
fn a_slab_is_handed_on_with_its_counts() {
    check(|| {
        let slabs = Arc::new(Slabs::new());
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let slabs = slabs.clone();
                thread::spawn(move || {
                    let slab = slabs.join();
                    tally(slab).add(Event::Polls, 1);
                    slabs.leave(slab);
                })
            })
            .collect();
        let again = Arc::clone(&slabs);
        let reader = read(&slabs, move |total| {
            let (first, second) = (total.of(Event::Polls), sum(&again).of(Event::Polls));
            assert!(first <= second && second <= 2, "{first}, {second}");
        });
        threads.into_iter().chain([reader]).for_each(|thread| thread.join().unwrap());
        assert_eq!(sum(&slabs).of(Event::Polls), 2);
    });
}

/// Several threads in their last destructors, with one slab for all.
#[test]
fn late_counts_are_not_lost() {
    check(|| {
        let slabs = Arc::new(Slabs::new());
        tally(slabs.late());
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let slabs = slabs.clone();
                thread::spawn(move || tally(slabs.late()).add(Event::Cancelled, 1))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(sum(&slabs).of(Event::Cancelled), 2);
    });
}
