//! The runtimes that are reported, their names, and their end.

use support::runtimes;

use std::sync::mpsc;
use std::thread;

use opentelemetry_instrumentation_runtime::RuntimeMetrics;
use runtimes::{build, looks, until, value, values};
use tokio::runtime::{self, Runtime};

const WORKERS: &str = "tokio.worker.count";
const TASKS: &str = "tokio.task.count";
const PARKS: &str = "tokio.worker.parks";

fn current_thread() -> Runtime {
    runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn named(name: &str) -> Runtime {
    runtime::Builder::new_current_thread().name(name).build().unwrap()
}

/// Adds this many tasks to a runtime, so that the number identifies it.
fn with_tasks(runtime: Runtime, tasks: usize) -> Runtime {
    for _ in 0..tasks {
        runtime.spawn(std::future::pending::<()>());
    }
    runtime
}

/// Returns the reported names of the runtimes, in order, and their numbers of tasks.
fn reported(metrics: &RuntimeMetrics) -> Vec<(String, f64)> {
    let points = values(metrics, TASKS).into_iter();
    let mut named: Vec<_> = points.map(|(attributes, tasks)| (attributes.join(" "), tasks)).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

fn pairs(expected: &[(&str, f64)]) -> Vec<(String, f64)> {
    expected.iter().map(|(name, tasks)| ((*name).to_owned(), *tasks)).collect()
}

#[test]
fn one_unnamed_runtime_stays_unnamed_and_two_get_numbers() {
    let (first, second) = (with_tasks(current_thread(), 1), with_tasks(current_thread(), 2));
    let metrics = build(RuntimeMetrics::builder());
    metrics.watch_runtime("", first.handle());
    assert_eq!(reported(&metrics), pairs(&[("", 1.0)]));
    metrics.watch_runtime("", second.handle());
    assert_eq!(reported(&metrics), pairs(&[("1", 1.0), ("2", 2.0)]));
    drop(first);
    assert_eq!(reported(&metrics), pairs(&[("2", 2.0)]), "once named, always named");
    let third = with_tasks(current_thread(), 3);
    metrics.watch_runtime("", third.handle());
    assert_eq!(reported(&metrics), pairs(&[("1", 3.0), ("2", 2.0)]), "the number is free again");
}

#[test]
fn one_runtime_after_another_needs_no_name() {
    let metrics = build(RuntimeMetrics::builder());
    for tasks in 1..=3 {
        let runtime = with_tasks(current_thread(), tasks);
        metrics.watch_runtime("", runtime.handle());
        assert_eq!(reported(&metrics), pairs(&[("", tasks as f64)]));
    }
}

#[test]
fn names_are_the_caller_s_or_the_runtime_s_and_are_distinct() {
    let metrics = build(RuntimeMetrics::builder());
    let io = with_tasks(named("io"), 1);
    metrics.watch_runtime("", io.handle());
    assert_eq!(reported(&metrics), pairs(&[("io", 1.0)]), "its own");
    let other = with_tasks(named("io"), 2);
    metrics.watch_runtime("", other.handle());
    let given = with_tasks(named("unasked"), 3);
    metrics.watch_runtime("cpu", given.handle());
    let nameless = with_tasks(current_thread(), 4);
    metrics.watch_runtime("", nameless.handle());
    let expected = [("1", 4.0), ("cpu", 3.0), ("io", 1.0), ("io-2", 2.0)];
    assert_eq!(reported(&metrics), pairs(&expected));
}

#[test]
fn a_runtime_watched_twice_is_one_and_the_first_name_given_stays() {
    let runtime = with_tasks(current_thread(), 1);
    let metrics =
        build(RuntimeMetrics::builder().runtime("", runtime.handle()).runtime("", runtime.handle()));
    assert_eq!(reported(&metrics), pairs(&[("", 1.0)]));
    metrics.watch_runtime("given", runtime.handle());
    assert_eq!(reported(&metrics), pairs(&[("given", 1.0)]), "a name wins over none");
    metrics.watch_runtime("later", runtime.handle());
    metrics.watch_runtime("", runtime.handle());
    assert_eq!(reported(&metrics), pairs(&[("given", 1.0)]));
}

#[test]
fn each_runtime_metrics_has_its_own_names() {
    let runtime = with_tasks(current_thread(), 1);
    let metrics = ["a", "b"].map(|name| build(RuntimeMetrics::builder().runtime(name, runtime.handle())));
    assert_eq!(reported(&metrics[0]), pairs(&[("a", 1.0)]));
    assert_eq!(reported(&metrics[1]), pairs(&[("b", 1.0)]));
    metrics[0].stop();
    assert_eq!(reported(&metrics[0]), []);
    assert_eq!(reported(&metrics[1]), pairs(&[("b", 1.0)]), "the other one goes on");
}

#[test]
fn a_successor_with_the_same_name_continues_the_counters() {
    let metrics = build(RuntimeMetrics::builder());
    let mut before = 0.0;
    for _ in 0..4 {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        metrics.watch_runtime("worker", runtime.handle());
        let parks = until("it parks", || value(&metrics, PARKS).filter(|parks| *parks > before));
        for _ in 0..5 {
            runtime.block_on(runtime.spawn(async {})).unwrap();
        }
        before = until("it parks again", || value(&metrics, PARKS).filter(|now| *now > parks));
    }
}

#[test]
fn a_runtime_that_has_shut_down_is_not_watched() {
    let runtime = current_thread();
    let handle = runtime.handle().clone();
    drop(runtime);
    let metrics = build(RuntimeMetrics::builder().runtime("gone", &handle));
    metrics.watch_runtime("", &handle);
    assert_eq!(reported(&metrics), []);
}

#[test]
fn the_series_of_a_runtime_end_with_it() {
    let metrics = build(RuntimeMetrics::builder());
    let gone = || until("it is forgotten", || metrics.snapshot().get(WORKERS).is_none().then_some(()));
    let watched = || {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        metrics.watch_runtime("", runtime.handle());
        assert_eq!(value(&metrics, TASKS), Some(0.0));
        runtime
    };

    drop(watched());
    gone();
    watched().shutdown_background();
    gone();
    watched().shutdown_timeout(std::time::Duration::from_millis(1));
    gone();
    thread::scope(|scope| scope.spawn(|| drop(watched())).join().unwrap());
    gone();
    // In the context of another runtime, where a drop must not wait for a runtime.
    let outer = current_thread();
    let runtime = watched();
    outer.block_on(async move {
        runtime.shutdown_background();
    });
    gone();
    let runtime = watched();
    outer.block_on(outer.spawn_blocking(move || drop(runtime))).unwrap();
    gone();
    // A task of the runtime keeps the last handle.
    let runtime = watched();
    let handle = runtime.handle().clone();
    runtime.spawn(async move {
        std::future::pending::<()>().await;
        drop(handle);
    });
    drop(runtime);
    gone();
}

#[test]
fn a_runtime_may_read_and_watch_while_it_shuts_down() {
    struct Reads(RuntimeMetrics, mpsc::Sender<()>);
    impl Drop for Reads {
        fn drop(&mut self) {
            self.0.snapshot();
            self.0.watch_runtime("late", &runtime::Handle::current());
            self.1.send(()).unwrap();
        }
    }
    let metrics = build(RuntimeMetrics::builder());
    let (done, is_done) = mpsc::channel();
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    metrics.watch_runtime("", runtime.handle());
    for _ in 0..8 {
        let reads = Reads(metrics.clone(), done.clone());
        runtime.spawn(async move {
            std::future::pending::<()>().await;
            drop(reads);
        });
    }
    drop(runtime);
    assert_eq!(is_done.try_iter().count(), 8);
    until("it is forgotten", || metrics.snapshot().get(WORKERS).is_none().then_some(()));
}

#[test]
fn the_probe_is_not_counted_as_a_task() {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let metrics = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
    for tasks in 0..3 {
        looks(&metrics, 1);
        assert_eq!(value(&metrics, TASKS), Some(f64::from(tasks)));
        assert!(runtime.metrics().num_alive_tasks() > tasks as usize, "Tokio counts it");
        runtime.spawn(std::future::pending::<()>());
    }
}

#[test]
fn per_worker_values_add_up_to_the_total() {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let total = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
    let each = build(RuntimeMetrics::builder().per_worker(true).runtime("", runtime.handle()));
    let snapshot = each.snapshot();
    let mut compared = 0;
    for reading in snapshot.readings() {
        let metric = reading.metric();
        if metric.opt_in_attribute() != Some("tokio.worker.index") {
            continue;
        }
        let workers: Vec<_> = reading
            .points()
            .iter()
            .map(|point| point.attributes().get("tokio.worker.index").unwrap().to_string())
            .collect();
        // Each worker has a point for each cause of a stall.
        assert!(
            workers.chunks(4).all(|chunk| chunk == ["0", "1", "2", "3"]),
            "{}: {workers:?}",
            metric.name()
        );
        assert_eq!(workers.len(), if metric.attribute().is_some() { 12 } else { 4 }, "{}", metric.name());
        // Values change meanwhile, so that the total lies between the sums before and after.
        let sum = || values(&each, metric.name()).iter().map(|(_, value)| value).sum::<f64>();
        let before = sum();
        let now = values(&total, metric.name()).iter().map(|(_, value)| value).sum::<f64>();
        assert!((before..=sum()).contains(&now), "{}", metric.name());
        compared += 1;
    }
    assert_eq!(compared, if cfg!(tokio_unstable) { 7 } else { 4 });
}
