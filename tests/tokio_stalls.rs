//! A worker that makes no progress is reported while it makes none, and nothing else is taken for it.

use support::runtimes;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::{Builder, RuntimeMetrics};
use runtimes::{TICK, build, histogram, looks, stalls, stalls_by_cause, until, value, values};
use support::pace::repeat_when_late;
use tokio::runtime::{self, Runtime};

const BLOCKED: Duration = Duration::from_millis(1500);
/// How far from the truth a stall's time may be: the watcher notices its beginning and its end one tick late at most, and
/// itself may be late by a half.
const TOLERANCE: f64 = 0.15;

/// After so many looks the watcher knows the threads of the workers.
const KNOWN: u64 = 8;

fn multi_thread(workers: usize) -> Runtime {
    runtime::Builder::new_multi_thread().worker_threads(workers).enable_time().build().unwrap()
}

fn current_thread() -> Runtime {
    runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn watching(runtime: &Runtime) -> RuntimeMetrics {
    build(RuntimeMetrics::builder().runtime("", runtime.handle()))
}

#[track_caller]
fn assert_close(seconds: f64, truth: f64, tolerance: f64) {
    assert!((seconds - truth).abs() <= tolerance, "{seconds} s reported, {truth} s true");
}

/// Blocks so many workers at once, each in another task. Returns when.
fn block(runtime: &Runtime, workers: usize) -> (Instant, Vec<tokio::task::JoinHandle<Instant>>) {
    let (started, starts) = mpsc::channel();
    let tasks = (0..workers)
        .map(|_| {
            let started = started.clone();
            runtime.spawn(async move {
                started.send(()).unwrap();
                thread::sleep(BLOCKED);
                Instant::now()
            })
        })
        .collect();
    (0..workers).for_each(|_| starts.recv().unwrap());
    (Instant::now(), tasks)
}

#[test]
fn a_blocked_worker_is_reported_at_once_and_its_time_grows() {
    repeat_when_late(|| {
        let runtime = multi_thread(4);
        let metrics = watching(&runtime);
        looks(&metrics, KNOWN);
        let (start, tasks) = block(&runtime, 1);
        let blocked = || stalls_by_cause(&metrics)[0];
        let time = || {
            let times = values(&metrics, "tokio.worker.stall.time");
            times.into_iter().find(|(cause, _)| cause == &["blocked"]).map(|(_, time)| time).unwrap()
        };
        until("the stall is reported", || (blocked() == 1.0).then_some(()));
        let noticed = start.elapsed();
        assert!(noticed < BLOCKED, "noticed after {noticed:?}");
        for part in [0.5, 0.9, 1.3] {
            thread::sleep(Duration::from_secs_f64(part).saturating_sub(start.elapsed()));
            assert_eq!(blocked(), 1.0);
            assert_close(time(), start.elapsed().as_secs_f64(), TOLERANCE);
        }

        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        let truth = start.elapsed().as_secs_f64();
        looks(&metrics, 2);
        let total = time();
        assert_eq!(blocked(), 1.0);
        assert_close(total, truth, TOLERANCE);
        looks(&metrics, 3);
        assert_eq!((blocked(), time()), (1.0, total), "it is over");
    });
}

#[test]
fn each_worker_has_its_own_series_on_request() {
    repeat_when_late(|| {
        let runtime = multi_thread(3);
        let metrics = build(RuntimeMetrics::builder().per_worker(true).runtime("", runtime.handle()));
        looks(&metrics, KNOWN);
        let (_, tasks) = block(&runtime, 1);
        let blocked = until("the stall is reported", || {
            let stalls = values(&metrics, "tokio.worker.stalls");
            assert_eq!(stalls.len(), 9, "three causes of three workers");
            stalls.into_iter().find(|(attributes, count)| attributes[0] == "blocked" && *count > 0.0)
        });
        let of_cause = |name| {
            let mut values = values(&metrics, name);
            values.retain(|(attributes, _)| attributes[0] == "blocked");
            values
        };
        assert_eq!(of_cause("tokio.worker.stalls").iter().map(|(_, count)| count).sum::<f64>(), 1.0);
        let times = of_cause("tokio.worker.stall.time");
        assert!(times.iter().all(|(worker, time)| (*worker == blocked.0) == (*time > 0.0)), "{times:?}");
        drop(tasks);
    });
}

#[test]
fn all_blocked_workers_are_reported() {
    repeat_when_late(|| {
        let runtime = multi_thread(2);
        let metrics = watching(&runtime);
        looks(&metrics, 1);
        let (start, tasks) = block(&runtime, 2);
        until("both stalls are reported", || (stalls(&metrics).0 == 2.0).then_some(()));
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        let truth = start.elapsed().as_secs_f64();
        looks(&metrics, 2);
        let (count, time) = stalls(&metrics);
        assert_eq!(count, 2.0);
        assert_close(time, 2.0 * truth, 2.0 * TOLERANCE);

        let delays = histogram(&metrics, "tokio.schedule.delay").unwrap();
        let late: u64 = delays
            .counts
            .iter()
            .zip(delays.bounds.iter())
            .filter(|(_, bound)| **bound > 1.0)
            .map(|(count, _)| count)
            .sum();
        assert_eq!(late, 1, "the probe had to wait for as long: {delays:?}");
    });
}

/// A thread of `spawn_blocking` has the name of the workers. While it works it may have taken a worker over.
#[test]
fn a_blocked_worker_is_reported_beside_blocking_tasks() {
    repeat_when_late(|| {
        let runtime = multi_thread(2);
        let metrics = watching(&runtime);
        runtime.spawn(async {
            loop {
                tokio::task::spawn_blocking(|| thread::sleep(TICK / 20)).await.unwrap();
                tokio::time::sleep(TICK / 2).await;
            }
        });
        looks(&metrics, KNOWN);
        let (_, tasks) = block(&runtime, 1);
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        looks(&metrics, 2);
        assert_eq!(stalls_by_cause(&metrics), [1.0, 0.0, 0.0]);
    });
}

/// The thread of another worker that wakes at each millisecond never rests for long.
#[test]
fn a_blocked_worker_is_reported_beside_a_busy_one() {
    repeat_when_late(|| {
        let runtime = multi_thread(2);
        let metrics = watching(&runtime);
        for _ in 0..4 {
            runtime.spawn(async {
                loop {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }
        looks(&metrics, KNOWN);
        let (start, tasks) = block(&runtime, 1);
        until("the stall is reported", || (stalls_by_cause(&metrics) == [1.0, 0.0, 0.0]).then_some(()));
        assert!(start.elapsed() < BLOCKED / 2, "reported after {:?}", start.elapsed());
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
    });
}

#[test]
fn block_in_place_blocks_no_worker() {
    repeat_when_late(|| {
        let runtime = multi_thread(1);
        let metrics = watching(&runtime);
        let (hold, held) = mpsc::channel::<()>();
        let task = runtime.spawn(async move { tokio::task::block_in_place(|| held.recv()) });
        looks(&metrics, 5);
        assert_eq!(stalls(&metrics), (0.0, 0.0));
        drop(hold);
        assert!(runtime.block_on(task).unwrap().is_err());
    });
}

#[test]
fn a_blocked_current_thread_runtime_is_reported() {
    repeat_when_late(|| {
        let runtime = current_thread();
        let metrics = runtime.block_on(async { watching(&runtime) });
        let looks =
            || histogram(&metrics, "tokio.schedule.delay").map_or(0, |delays| delays.counts.iter().sum());
        let (blocked, (count, time)) = runtime.block_on(async {
            while looks() < KNOWN {
                tokio::task::yield_now().await;
            }
            let start = Instant::now();
            thread::sleep(Duration::from_secs(1));
            (start.elapsed(), stalls(&metrics))
        });
        assert_eq!(count, 1.0, "reported from within the very poll");
        assert_close(time, blocked.as_secs_f64(), TOLERANCE);
    });
}

#[test]
fn a_current_thread_runtime_that_no_thread_drives_is_not_blocked() {
    repeat_when_late(|| {
        let never = current_thread();
        let metrics = watching(&never);
        thread::sleep(5 * TICK);
        assert_eq!(stalls(&metrics), (0.0, 0.0), "never driven");
        assert_eq!(value(&metrics, "tokio.task.count"), Some(0.0));
        let waiting = values(&metrics, "tokio.queue.length");
        assert!(waiting.iter().all(|(_, count)| *count == 0.0), "{waiting:?}");

        let left = current_thread();
        let metrics = watching(&left);
        left.block_on(async { tokio::time::sleep(2 * TICK).await });
        thread::sleep(5 * TICK);
        assert_eq!(stalls(&metrics), (0.0, 0.0), "left by the thread that reads");
        left.block_on(async { tokio::time::sleep(2 * TICK).await });
        assert_eq!(stalls(&metrics), (0.0, 0.0), "driven again");
        let delays = histogram(&metrics, "tokio.schedule.delay").unwrap();
        assert!(delays.sum < 0.4, "what no thread drove was not late: {delays:?}");

        let ended = current_thread();
        let metrics = watching(&ended);
        thread::scope(|scope| {
            scope.spawn(|| ended.block_on(async { tokio::time::sleep(2 * TICK).await }));
        });
        thread::sleep(5 * TICK);
        let (_, time) = stalls(&metrics);
        assert_eq!(time, 0.0, "its thread has ended");
    });
}

#[test]
fn a_blocked_runtime_is_forgotten_when_it_has_shut_down() {
    repeat_when_late(|| {
        let runtime = multi_thread(1);
        let metrics = watching(&runtime);
        looks(&metrics, 1);
        let (start, _tasks) = block(&runtime, 1);
        until("the stall is reported", || (stalls(&metrics).0 == 1.0).then_some(()));
        runtime.shutdown_background();
        until("the runtime is forgotten", || {
            metrics.snapshot().get("tokio.worker.stalls").is_none().then_some(())
        });
        assert!(start.elapsed() < BLOCKED + 2 * TICK, "{:?}", start.elapsed());
    });
}

#[test]
fn a_paused_clock_stays_where_it_is() {
    repeat_when_late(|| {
        let runtime =
            runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let metrics = watching(&runtime);
        let (done, is_done) = tokio::sync::oneshot::channel();
        runtime.block_on(async {
            let start = tokio::time::Instant::now();
            let seen = metrics.clone();
            thread::spawn(move || {
                looks(&seen, 4);
                done.send(()).unwrap();
            });
            is_done.await.unwrap();
            assert_eq!(start.elapsed(), Duration::ZERO);
            tokio::time::sleep(Duration::from_secs(3600)).await;
            assert_eq!(
                start.elapsed(),
                Duration::from_secs(3600),
                "it goes on as the runtime's own timers want it"
            );
        });
    });
}

#[test]
fn an_interval_of_zero_measures_neither_delays_nor_stalls() {
    // Runs in a separate process, since a process has one watcher.
    if std::env::var_os("ALONE").is_none() {
        let test = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "an_interval_of_zero_measures_neither_delays_nor_stalls"])
            .env("ALONE", "1")
            .output()
            .unwrap();
        assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stdout));
        return;
    }
    let runtime = multi_thread(1);
    let off: Builder = RuntimeMetrics::builder().probe_interval(Duration::ZERO);
    let metrics = build(off.runtime("", runtime.handle()));
    assert_eq!(value(&metrics, "tokio.task.count"), Some(0.0));
    let measured = ["tokio.worker.stalls", "tokio.worker.stall.time", "tokio.schedule.delay"];
    assert!(measured.iter().all(|name| metrics.snapshot().get(name).is_none()));
    let more = watching(&runtime);
    looks(&more, 1);
    assert_eq!(stalls(&metrics), (0.0, 0.0), "one builder that measures them is enough for all");
    drop(runtime);
    assert!(metrics.snapshot().get("tokio.task.count").is_none(), "it goes without a watcher too");
}
