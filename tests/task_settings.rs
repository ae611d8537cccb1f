//! The settings of all tasks of the process. A separate program, one test after the other.

use support::tasks;

use std::future::{pending, ready};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::{RuntimeMetrics, TaskExt};
use tasks::{Fates, alone, build, busy, fates, names, value};

#[test]
fn past_the_limit_tasks_are_counted_together_and_none_is_lost() {
    let _alone = alone();
    let before = names(&build(RuntimeMetrics::builder()).snapshot()).len();
    let metrics = build(RuntimeMetrics::builder().task_name_limit(before + 5));
    let held: Vec<_> =
        (0..1000).map(|index| pending::<()>().with_task_name(format!("limit {index}"))).collect();
    let snapshot = metrics.snapshot();
    // As many names as are left, and the rest.
    assert_eq!(names(&snapshot).len(), before + 5 + 1);
    for name in (0..5).map(|index| format!("limit {index}")) {
        assert_eq!(fates(&snapshot, &name), Fates { spawned: 1.0, alive: 1.0, ..Fates::default() });
    }
    let rest = Fates { spawned: 995.0, alive: 995.0, ..Fates::default() };
    assert_eq!(fates(&snapshot, "_OTHER"), rest);
    drop(held);
    assert_eq!(fates(&metrics.snapshot(), "_OTHER"), Fates { alive: 0.0, cancelled: 995.0, ..rest });

    // A higher limit has room for new names, and earlier counts stay.
    let metrics = build(RuntimeMetrics::builder().task_name_limit(200));
    drop(ready(()).with_task_name("limit 999"));
    let snapshot = metrics.snapshot();
    assert_eq!(fates(&snapshot, "limit 999").spawned, 1.0);
    assert_eq!(fates(&snapshot, "_OTHER").spawned, 995.0);
}

#[test]
fn the_threshold_of_slow_polls_is_a_setting() {
    let _alone = alone();
    for (threshold, slow) in [(5, 1.0), (500, 0.0), (0, 2.0)] {
        let threshold_set = Duration::from_millis(threshold);
        let metrics = build(RuntimeMetrics::builder().slow_poll_threshold(threshold_set));
        let name = format!("slow from {threshold} ms");
        let mut polls = 0;
        let task = std::future::poll_fn(move |context| {
            polls += 1;
            if polls == 1 {
                busy(Duration::from_millis(20));
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        let mut task = pin!(task.with_task_name(name.clone()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(task.as_mut().poll(&mut context).is_pending());
        assert!(task.as_mut().poll(&mut context).is_ready());
        assert_eq!(value(&metrics.snapshot(), "slow_polls", &name), Some(slow), "{name}");
    }
}

#[test]
fn a_builder_without_a_setting_keeps_that_of_another() {
    let _alone = alone();
    let metrics =
        build(RuntimeMetrics::builder().slow_poll_threshold(Duration::ZERO).task_scheduled_time(true));
    build(RuntimeMetrics::builder());
    let name = "set by another";
    let mut task = pin!(ready(()).with_task_name(name));
    assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    let snapshot = metrics.snapshot();
    assert_eq!(value(&snapshot, "slow_polls", name), Some(1.0));
    assert!(value(&snapshot, "scheduled.time", name).is_some());
    build(
        RuntimeMetrics::builder().slow_poll_threshold(Duration::from_millis(10)).task_scheduled_time(false),
    );
}

/// Counts its wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Gives its waker away and waits.
struct Waits(Arc<Mutex<Vec<Waker>>>);

impl Future for Waits {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.lock().unwrap().push(context.waker().clone());
        Poll::Pending
    }
}

#[test]
fn the_time_from_wake_to_poll_is_measured_on_request() {
    let _alone = alone();
    let metrics = build(RuntimeMetrics::builder().task_scheduled_time(true));
    let scheduled = || value(&metrics.snapshot(), "scheduled.time", "scheduled").unwrap();
    let wakers = Arc::new(Mutex::new(Vec::new()));
    let mut task = pin!(Waits(Arc::clone(&wakers)).with_task_name("scheduled"));
    let counts: [Arc<Wakes>; 2] = Default::default();
    let mut poll = |which: usize| {
        let waker = Waker::from(Arc::clone(&counts[which]));
        assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    };
    poll(0);
    assert_eq!(scheduled(), 0.0, "it was not woken");

    // From the first wake on, though it is woken again.
    let start = Instant::now();
    let waker = wakers.lock().unwrap().pop().unwrap();
    waker.wake_by_ref();
    busy(Duration::from_millis(20));
    waker.wake();
    poll(0);
    let most = start.elapsed().as_secs_f64();
    let first = scheduled();
    assert!(first >= 0.0199 && first <= most * 1.001, "{first} of {most}");
    assert_eq!(counts[0].0.load(SeqCst), 2, "every wake gets through");

    // The next poll comes with another waker, as after a move to another runtime. The time still counts.
    let waker = wakers.lock().unwrap().pop().unwrap();
    waker.wake_by_ref();
    busy(Duration::from_millis(20));
    poll(1);
    let second = scheduled() - first;
    assert!(second >= 0.0199, "{second}");
    wakers.lock().unwrap().pop().unwrap().wake();
    let both = [0, 1].map(|which| counts[which].0.load(SeqCst));
    assert_eq!(both, [3, 1], "the new waker is woken, not the old one");

    // Turned off, the metric has no point.
    let metrics = build(RuntimeMetrics::builder().task_scheduled_time(false));
    assert_eq!(value(&metrics.snapshot(), "scheduled.time", "scheduled"), None);
}

#[test]
fn named_tasks_wake_each_other_while_it_is_measured() {
    let _alone = alone();
    let metrics = build(RuntimeMetrics::builder().task_scheduled_time(true));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (ping, mut pinged) = tokio::sync::mpsc::channel(1);
    let (pong, mut ponged) = tokio::sync::mpsc::channel(1);
    let first = async move {
        for round in 0..1000 {
            ping.send(round).await.unwrap();
            assert_eq!(ponged.recv().await, Some(round));
        }
    };
    let second = async move {
        while let Some(round) = pinged.recv().await {
            pong.send(round).await.unwrap();
        }
    };
    let second = runtime.spawn(second.with_task_name("pong"));
    runtime.block_on(runtime.spawn(first.with_task_name("ping"))).unwrap();
    runtime.block_on(second).unwrap();
    for name in ["ping", "pong"] {
        let scheduled = value(&metrics.snapshot(), "scheduled.time", name).unwrap();
        assert!(scheduled > 0.0, "{name}");
    }
    build(RuntimeMetrics::builder().task_scheduled_time(false));
}
