//! Workers that have more to do than they can do are not stuck, however long it takes until Tokio publishes something.

use support::runtimes;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::{Point, RuntimeMetrics, TaskExt};
use runtimes::{TICK, build, stalls, stalls_by_cause};
use support::pace::repeat_when_late;
use tokio::runtime;

const WORKERS: usize = 2;
const TASKS_PER_WORKER: u32 = 4;

/// Keeps all workers of a runtime busy with polls of one length. Returns the stalls, and the longest time for which a
/// worker really made no progress: on a busy machine the system may keep it waiting.
fn saturate(poll: Duration) -> ((f64, f64), Duration) {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(WORKERS).build().unwrap();
    let metrics = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
    let over = Arc::new(AtomicBool::new(false));
    let progress = Arc::new([(); WORKERS].map(|()| Mutex::new((Instant::now(), Duration::ZERO))));
    for _ in 0..TASKS_PER_WORKER * WORKERS as u32 {
        let (over, progress) = (Arc::clone(&over), Arc::clone(&progress));
        runtime.spawn(async move {
            while !over.load(Relaxed) {
                // A poll that sleeps keeps a worker busy too, and needs no idle machine.
                std::thread::sleep(poll);
                polled(progress.get(runtime::worker_index().unwrap()).unwrap());
                tokio::task::yield_now().await;
            }
        });
    }
    std::thread::sleep(8 * TICK);
    let reported = stalls(&metrics);
    over.store(true, Relaxed);
    drop(runtime);
    let longest = progress.iter().map(|worker| worker.lock().unwrap().1).max().unwrap();
    (reported, longest)
}

fn polled(progress: &Mutex<(Instant, Duration)>) {
    let (last, longest) = &mut *progress.lock().unwrap();
    *longest = last.elapsed().max(*longest);
    *last = Instant::now();
}

#[test]
fn saturated_workers_are_not_stalled() {
    for poll in [50, 2_000, 5_000, 10_000].map(Duration::from_micros) {
        repeat_when_late(|| {
            let (reported, longest) = saturate(poll);
            assert!(longest < TICK, "a worker stood still for {longest:?}");
            assert_eq!(reported, (0.0, 0.0), "polls of {poll:?}, {longest:?} at most");
        });
    }
}

/// Computes for so long, as the clock has it: on a busy machine the system takes some of it away.
fn compute(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Computes until this thread has used so much CPU time.
fn use_cpu(time: Duration) {
    let used = || {
        // The first number is the time on the CPU in nanoseconds.
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
        Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
    };
    let start = used();
    while used() < start + time {
        compute(Duration::from_millis(2));
    }
}

#[test]
fn a_task_that_computes_and_yields_does_not_stall_its_worker() {
    for workers in [1, 2, 4] {
        for tasks in [&[10][..], &[5, 1], &[10, 10]] {
            let runtime =
                runtime::Builder::new_multi_thread().worker_threads(workers).enable_time().build().unwrap();
            let metrics = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
            for millis in tasks.iter().copied() {
                runtime.spawn(async move {
                    loop {
                        compute(Duration::from_millis(millis));
                        tokio::task::yield_now().await;
                    }
                });
            }
            // Other work, which wakes workers now and then.
            runtime.spawn(async {
                loop {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
            std::thread::sleep(13 * TICK);
            let [blocked, running, _] = stalls_by_cause(&metrics);
            assert_eq!([blocked, running], [0.0, 0.0], "{tasks:?} on {workers} workers");
        }
    }
}

#[test]
fn one_poll_that_computes_for_long_stalls_its_worker() {
    repeat_when_late(|| {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(WORKERS).build().unwrap();
        let metrics = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
        std::thread::sleep(3 * TICK);
        runtime.block_on(runtime.spawn(async { use_cpu(Duration::from_secs(1)) })).unwrap();
        std::thread::sleep(2 * TICK);
        let [blocked, running, _] = stalls_by_cause(&metrics);
        assert_eq!([blocked, running], [0.0, 1.0]);
    });
}

#[test]
fn a_named_task_that_computes_for_twice_the_threshold_stalls_its_worker() {
    repeat_when_late(|| {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(WORKERS).build().unwrap();
        let metrics = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
        std::thread::sleep(3 * TICK);
        let task = async { use_cpu(Duration::from_millis(300)) }.with_task_name("computes");
        runtime.block_on(runtime.spawn(task)).unwrap();
        std::thread::sleep(2 * TICK);
        // On a busy machine it may wait for the CPU for longer than it has it.
        let [blocked, running, starved] = stalls_by_cause(&metrics);
        assert_eq!([blocked, running + starved], [0.0, 1.0]);
        let snapshot = metrics.snapshot();
        let stalls = snapshot.get("rust.task.stalls").expect("a task was stalled");
        let name = |point: &Point| point.attributes().get("rust.task.name").map(ToString::to_string);
        assert!(stalls.points().iter().any(|point| name(point).as_deref() == Some("computes")));
    });
}

#[test]
fn block_in_place_beside_a_busy_task_stalls_no_worker() {
    for workers in [1, 2] {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(workers).build().unwrap();
        let metrics = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
        for _ in 0..workers {
            runtime.spawn(async {
                loop {
                    compute(Duration::from_millis(5));
                    tokio::task::yield_now().await;
                }
            });
        }
        for _ in 0..4 {
            let blocks =
                runtime.spawn(async { tokio::task::block_in_place(|| std::thread::sleep(4 * TICK)) });
            runtime.block_on(blocks).unwrap();
        }
        let [blocked, running, _] = stalls_by_cause(&metrics);
        assert_eq!([blocked, running], [0.0, 0.0], "{workers} workers");
    }
}

#[test]
fn workers_with_a_long_queue_are_not_stalled() {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(WORKERS).build().unwrap();
    let metrics = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
    // Spawned from outside, so that all that comes later, probes too, has to queue behind them.
    let tasks: Vec<_> =
        (0..300).map(|_| runtime.spawn(async { std::thread::sleep(Duration::from_millis(5)) })).collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    let [blocked, running, _] = stalls_by_cause(&metrics);
    assert_eq!([blocked, running], [0.0, 0.0]);
}
