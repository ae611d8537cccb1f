//! Named futures: their beginnings, polls and ends on any runtime and thread.

use support::tasks;

use std::cell::RefCell;
use std::future::{pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::{NamedTask, RuntimeMetrics, TaskExt};
use tasks::{Fates, busy, fates, metrics, names, points, value};
use tokio::runtime::{Builder, Runtime};

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn polled<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Pending so many times, then ready.
fn after(mut polls: usize) -> impl Future<Output = ()> + Send {
    poll_fn(move |_| match polls {
        0 => Poll::Ready(()),
        _ => {
            polls -= 1;
            Poll::Pending
        }
    })
}

#[test]
fn each_outcome_is_counted_separately() {
    let metrics = metrics();
    let runtime = current_thread();
    const NAME: &str = "outcomes";
    runtime.block_on(async {
        for _ in 0..3 {
            tokio::spawn(tokio::task::yield_now().with_task_name(NAME)).await.unwrap();
        }
        for _ in 0..2 {
            let task = tokio::spawn(pending::<()>().with_task_name(NAME));
            tokio::task::yield_now().await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        let task = tokio::spawn(async { panic!("as it should") }.with_task_name(NAME));
        assert!(task.await.unwrap_err().is_panic());
        tokio::spawn(pending::<()>().with_task_name(NAME));
        tokio::task::yield_now().await;
    });
    let snapshot = metrics.snapshot();
    let seen = fates(&snapshot, NAME);
    let expected =
        Fates { spawned: 7.0, completed: 3.0, cancelled: 2.0, panicked: 1.0, alive: 1.0, ..Fates::default() };
    assert_eq!(seen, expected);
    assert_eq!(value(&snapshot, "polls", NAME), Some(3.0 * 2.0 + 2.0 + 1.0 + 1.0));
    drop(runtime);
    assert_eq!(fates(&metrics.snapshot(), NAME), Fates { cancelled: 3.0, alive: 0.0, ..expected });
}

#[test]
fn a_future_that_is_never_polled_is_counted() {
    let metrics = metrics();
    let first = ready(()).with_task_name("unpolled");
    let second = ready(()).with_task_name("unpolled");
    let alive = Fates { spawned: 2.0, alive: 2.0, ..Fates::default() };
    assert_eq!(fates(&metrics.snapshot(), "unpolled"), alive);
    drop((first, second));
    let snapshot = metrics.snapshot();
    assert_eq!(fates(&snapshot, "unpolled"), Fates { alive: 0.0, cancelled: 2.0, ..alive });
    assert_eq!(value(&snapshot, "polls", "unpolled"), Some(0.0));
}

#[test]
fn a_name_appears_with_its_first_use() {
    let metrics = metrics();
    assert_eq!(points(&metrics.snapshot(), "count", "late"), []);
    let task = ready(()).with_task_name("late");
    let snapshot = metrics.snapshot();
    assert_eq!(value(&snapshot, "count", "late"), Some(1.0));
    // All of its points; values that cannot be read have none.
    let ended = points(&snapshot, "ended", "late");
    assert_eq!(ended, ["completed", "cancelled", "panicked"].map(|outcome| (outcome.to_owned(), 0.0)));
    for metric in ["polls", "busy.time", "slow_polls"] {
        assert_eq!(value(&snapshot, metric, "late"), Some(0.0), "{metric}");
    }
    for metric in ["scheduled.time", "memory.allocated", "memory.allocations"] {
        assert_eq!(value(&snapshot, metric, "late"), None, "{metric}");
    }
    drop(task);
}

#[test]
fn threads_may_take_turns_and_come_and_go() {
    let metrics = metrics();
    let mut task: Boxed = Box::pin(after(20).with_task_name("turns"));
    for _ in 0..20 {
        task = thread::spawn(move || {
            assert!(polled(task.as_mut()).is_pending());
            task
        })
        .join()
        .unwrap();
    }
    assert!(polled(task.as_mut()).is_ready());
    let snapshot = metrics.snapshot();
    assert_eq!(value(&snapshot, "polls", "turns"), Some(21.0));
    let expected = Fates { spawned: 1.0, completed: 1.0, ..Fates::default() };
    assert_eq!(fates(&snapshot, "turns"), expected);
}

#[test]
fn a_future_may_move_from_one_runtime_to_another() {
    let metrics = metrics();
    let mut task: Boxed = Box::pin(after(2).with_task_name("moved"));
    for _ in 0..2 {
        let (first, back) = current_thread().block_on(async {
            let poll = poll_fn(|context| Poll::Ready(task.as_mut().poll(context))).await;
            (poll, task)
        });
        assert!(first.is_pending());
        task = back;
    }
    let other = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    other.block_on(other.spawn(task)).unwrap();
    let snapshot = metrics.snapshot();
    assert_eq!(fates(&snapshot, "moved"), Fates { spawned: 1.0, completed: 1.0, ..Fates::default() });
    assert_eq!(value(&snapshot, "polls", "moved"), Some(3.0));
}

#[test]
fn an_owned_name_and_a_text_of_the_program_are_one_series() {
    let metrics = metrics();
    drop(ready(()).with_task_name("shared"));
    drop(ready(()).with_task_name(String::from("shared")));
    let snapshot = metrics.snapshot();
    assert_eq!(fates(&snapshot, "shared").spawned, 2.0);
    assert_eq!(names(&snapshot).iter().filter(|name| *name == "shared").count(), 1);
}

#[test]
fn nested_futures_are_counted_each_under_its_own_name() {
    let metrics = metrics();
    let start = Instant::now();
    current_thread().block_on(
        async {
            busy(Duration::from_millis(20));
            for _ in 0..2 {
                async { busy(Duration::from_millis(20)) }.with_task_name("inner").await;
            }
        }
        .with_task_name("outer"),
    );
    let whole = start.elapsed().as_secs_f64();
    let snapshot = metrics.snapshot();
    for (name, spawned) in [("outer", 1.0), ("inner", 2.0)] {
        let expected = Fates { spawned, completed: spawned, ..Fates::default() };
        assert_eq!(fates(&snapshot, name), expected, "{name}");
    }
    let [outer, inner] = ["outer", "inner"].map(|name| value(&snapshot, "busy.time", name).unwrap());
    assert!(outer >= 0.0199 && inner >= 0.0398, "{outer}, {inner}");
    assert!(outer + inner <= whole * 1.001, "{outer} + {inner} of {whole}: the inner one's time counts once");
    // Each poll took that long.
    assert_eq!(value(&snapshot, "slow_polls", "outer"), Some(1.0));
    assert_eq!(value(&snapshot, "slow_polls", "inner"), Some(2.0));
}

#[test]
fn a_fast_poll_is_not_a_slow_one() {
    let metrics = metrics();
    current_thread().block_on(
        async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
        .with_task_name("fast"),
    );
    let snapshot = metrics.snapshot();
    assert_eq!(value(&snapshot, "polls", "fast"), Some(101.0));
    let slow = value(&snapshot, "slow_polls", "fast").unwrap();
    // The system may preempt the thread at any time, but not every time.
    assert!(slow < 10.0, "{slow}");
}

#[test]
fn a_panic_ends_the_futures_it_unwinds_and_cancels_those_they_hold() {
    let metrics = metrics();
    let mut outer = Box::pin(
        async {
            let _held = pin!(pending::<()>().with_task_name("held"));
            let mut polled_once = pin!(pending::<()>().with_task_name("held"));
            assert!(polled(polled_once.as_mut()).is_pending());
            async { panic!("as it should") }.with_task_name("thrower").await
        }
        .with_task_name("thrown through"),
    );
    assert!(catch_unwind(AssertUnwindSafe(|| polled(outer.as_mut()))).is_err());
    let panicked = Fates { spawned: 1.0, panicked: 1.0, ..Fates::default() };
    let snapshot = metrics.snapshot();
    assert_eq!(fates(&snapshot, "thrower"), panicked);
    assert_eq!(fates(&snapshot, "thrown through"), panicked);
    assert_eq!(fates(&snapshot, "held"), Fates { spawned: 2.0, cancelled: 2.0, ..Fates::default() });
    for name in ["thrower", "thrown through"] {
        assert_eq!(value(&snapshot, "polls", name), Some(1.0), "{name}");
    }
    drop(outer);
    assert_eq!(fates(&metrics.snapshot(), "thrown through"), panicked, "it had ended before");
}

#[test]
fn a_caught_panic_ends_the_inner_future_alone() {
    let metrics = metrics();
    let catching = async {
        let mut inner = Box::pin(async { panic!("as it should") }.with_task_name("caught"));
        assert!(catch_unwind(AssertUnwindSafe(|| polled(inner.as_mut()))).is_err());
    };
    current_thread().block_on(catching.with_task_name("catching"));
    let snapshot = metrics.snapshot();
    assert_eq!(fates(&snapshot, "caught"), Fates { spawned: 1.0, panicked: 1.0, ..Fates::default() });
    assert_eq!(fates(&snapshot, "catching"), Fates { spawned: 1.0, completed: 1.0, ..Fates::default() });
}

#[test]
fn a_future_that_is_dropped_while_its_thread_panics_is_cancelled() {
    let metrics = metrics();
    let panicking = thread::spawn(|| {
        let _held = ready(()).with_task_name("in a panic");
        panic!("as it should");
    });
    assert!(panicking.join().is_err());
    let expected = Fates { spawned: 1.0, cancelled: 1.0, ..Fates::default() };
    assert_eq!(fates(&metrics.snapshot(), "in a panic"), expected);
}

#[test]
fn a_future_that_has_ended_counts_no_more() {
    let metrics = metrics();
    let mut task = pin!(poll_fn(|_| Poll::Ready(())).with_task_name("over"));
    for _ in 0..3 {
        assert!(polled(task.as_mut()).is_ready());
    }
    let snapshot = metrics.snapshot();
    assert_eq!(fates(&snapshot, "over"), Fates { spawned: 1.0, completed: 1.0, ..Fates::default() });
    assert_eq!(value(&snapshot, "polls", "over"), Some(1.0));
}

/// Drops its content in the destructor of a thread-local, after the destructor of the library.
#[test]
fn a_future_dropped_at_the_end_of_its_thread_is_counted() {
    thread_local! {
        static HELD: RefCell<Vec<NamedTask<std::future::Pending<()>>>> = const { RefCell::new(Vec::new()) };
    }
    let metrics = metrics();
    for _ in 0..20 {
        thread::spawn(|| {
            // Destructors run in the reverse order of first use, so this one follows the library's.
            HELD.with(|held| held.borrow_mut().clear());
            let tasks: Vec<_> = (0..3).map(|_| pending().with_task_name("to the end")).collect();
            HELD.with(|held| held.borrow_mut().extend(tasks));
        })
        .join()
        .unwrap();
    }
    let expected = Fates { spawned: 60.0, cancelled: 60.0, ..Fates::default() };
    assert_eq!(fates(&metrics.snapshot(), "to the end"), expected);
}

/// Short-lived threads spawn tasks for each other while others take snapshots.
#[test]
fn nothing_is_lost_and_the_law_holds_at_every_moment() {
    const NAMES: [&str; 3] = ["stress 0", "stress 1", "stress 2"];
    const THREADS: usize = 8;
    const TASKS: usize = 2_000;
    let metrics = metrics();
    NAMES.iter().for_each(|name| drop(ready(()).with_task_name(*name)));
    let done = AtomicBool::new(false);
    let (send, receive) = std::sync::mpsc::channel::<Boxed>();
    let looks = thread::scope(|scope| {
        let look = scope.spawn(|| look_until(&done, &metrics, &NAMES));
        let finisher = scope.spawn(move || {
            // A third completes, a third panics, a third is dropped.
            for (index, mut task) in receive.into_iter().enumerate() {
                if index % 3 > 0 {
                    let _ = catch_unwind(AssertUnwindSafe(|| polled(task.as_mut())));
                }
            }
        });
        let spawners: Vec<_> = (0..THREADS)
            .map(|thread| {
                let send = send.clone();
                scope.spawn(move || {
                    for index in 0..TASKS {
                        let name = NAMES[(thread + index) % NAMES.len()];
                        let task = async move { assert!(index % 2 == 0, "as it should") };
                        send.send(Box::pin(task.with_task_name(name))).unwrap();
                    }
                })
            })
            .collect();
        drop(send);
        spawners.into_iter().for_each(|spawner| spawner.join().unwrap());
        finisher.join().unwrap();
        done.store(true, Relaxed);
        look.join().unwrap()
    });
    let snapshot = metrics.snapshot();
    let total = NAMES.map(|name| fates(&snapshot, name));
    assert_eq!(total.iter().map(|name| name.spawned).sum::<f64>(), (THREADS * TASKS + NAMES.len()) as f64);
    assert_eq!(total.iter().map(|name| name.alive).sum::<f64>(), 0.0);
    assert!(looks > 0);
}

fn look_until(done: &AtomicBool, metrics: &RuntimeMetrics, names: &[&str]) -> usize {
    let mut last = vec![Fates::default(); names.len()];
    let mut looks = 0;
    while !done.load(Relaxed) {
        let snapshot = metrics.snapshot();
        for (name, last) in names.iter().zip(&mut last) {
            let now = fates(&snapshot, name);
            assert!(now.spawned >= last.spawned && now.completed >= last.completed, "{now:?} after {last:?}");
            *last = now;
        }
        looks += 1;
    }
    looks
}
