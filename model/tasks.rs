//! Checks the counters of the named tasks.

#[path = "../src/count/task/chunks.rs"]
mod chunks;
#[path = "../src/count/task/counters.rs"]
mod counters;
#[path = "../src/count/task/name.rs"]
mod name;
mod sync {
    use loom::sync::MutexGuard;
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    /// The library's mutex, which a panic does not poison.
    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    macro_rules! constructor {
        ($($function:tt)*) => { pub(crate) $($function)* };
    }
    pub(super) use constructor;
}

use counters::{Event, Slab, Slabs, Tally, Totals};
use loom::sync::Arc;
use loom::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use loom::thread;

use name::NameId;

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

/// Adds up on another thread, which must be started last: between a writer's read and its write, the checker lets only
/// threads read that were started later.
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
        // Both have counted before, since a thread that claims a slab waits for the sum.
        let [spawner, runner] = [(); 2].map(|()| tally(slabs.claim(0)));
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

/// Threads come and go while the sum is taken: no count is lost, counted twice or falls.
#[test]
fn a_slab_is_reused_with_its_counts() {
    check(|| {
        let slabs = Arc::new(Slabs::new());
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let slabs = slabs.clone();
                thread::spawn(move || {
                    let slab = slabs.claim(0);
                    tally(slab).add(Event::Polls, 1);
                    slabs.release(slab);
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

/// Several threads in their last destructors share one slab.
#[test]
fn counts_of_threads_without_a_slab_are_not_lost() {
    check(|| {
        let slabs = Arc::new(Slabs::new());
        tally(slabs.shared());
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let slabs = slabs.clone();
                thread::spawn(move || tally(slabs.shared()).add(Event::Cancelled, 1))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(sum(&slabs).of(Event::Cancelled), 2);
    });
}
