//! Tokio's histograms under `tokio_unstable`. A program without a watcher, since the polls of its probes would be counted.

#![cfg(tokio_unstable)]

use support::reader;
use support::runtimes;

use std::thread;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{Kind, RuntimeMetrics};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use reader::{Reader, provider};
use runtimes::{histogram, tokio_runtime, until};
use tokio::runtime::{self, HistogramConfiguration, LogHistogram, Runtime};

const DELAY: &str = "tokio.schedule.delay";
const POLL: &str = "tokio.task.poll.duration";
const SCHEDULE: &str = "tokio.schedule.duration";

fn with_histograms(workers: usize) -> Runtime {
    runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_metrics_poll_time_histogram()
        .metrics_poll_time_histogram_configuration(HistogramConfiguration::log(LogHistogram::default()))
        .enable_metrics_schedule_latency_histogram()
        .metrics_schedule_latency_histogram_configuration(HistogramConfiguration::linear(
            Duration::from_micros(50),
            20,
        ))
        .build()
        .unwrap()
}

/// Without a watcher, so that the published values stay as they are.
fn init(provider: &SdkMeterProvider, runtime: &Runtime) -> RuntimeMetrics {
    let builder = RuntimeMetrics::builder().probe_interval(Duration::ZERO);
    builder.runtime("", runtime.handle()).build(&provider.meter("test"))
}

/// Runs tasks of many lengths and waits until Tokio has published everything. A worker publishes its histograms after its
/// other counters, bucket by bucket: each poll must be in both.
fn run(runtime: &Runtime, tasks: u64) {
    let metrics = runtime.metrics();
    let sum = |read: &dyn Fn(usize) -> u64| (0..metrics.num_workers()).map(read).sum::<u64>();
    let polls = || sum(&|worker| metrics.worker_poll_count(worker));
    let in_buckets = || {
        let polled = |worker| {
            let count = |bucket| metrics.poll_time_histogram_bucket_count(worker, bucket);
            (0..metrics.poll_time_histogram_num_buckets()).map(count).sum()
        };
        let scheduled = |worker| {
            let count = |bucket| metrics.schedule_latency_histogram_bucket_count(worker, bucket);
            (0..metrics.schedule_latency_histogram_num_buckets()).map(count).sum()
        };
        [sum(&polled), sum(&scheduled)]
    };
    let before = polls();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            runtime.spawn(async move {
                thread::sleep(Duration::from_micros(task % 7 * 30));
            })
        })
        .collect();
    let spawned = tasks.len() as u64;
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    until("the workers publish", || {
        let polls = polls();
        (polls >= before + spawned && in_buckets() == [polls; 2]).then_some(())
    });
}

#[test]
fn every_poll_is_in_its_bucket() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let runtime = with_histograms(3);
    let metrics = init(&provider, &runtime);
    for tasks in [100, 1, 1000] {
        run(&runtime, tasks);
        let exported = reader.point(POLL).unwrap();
        let tokio = runtime.metrics();
        let buckets = tokio.poll_time_histogram_num_buckets();
        let own: Vec<u64> = (0..buckets)
            .map(|bucket| (0..3).map(|worker| tokio.poll_time_histogram_bucket_count(worker, bucket)).sum())
            .collect();
        assert_eq!(exported.counts, own);
        let ends = (0..buckets - 1).map(|bucket| tokio.poll_time_histogram_bucket_range(bucket).end);
        assert_eq!(exported.bounds, ends.map(|end| end.as_secs_f64()).collect::<Vec<_>>());
        let polls: u64 = (0..3).map(|worker| tokio.worker_poll_count(worker)).sum();
        assert_eq!(exported.counts.iter().sum::<u64>(), polls, "Tokio's own count");
        assert_eq!(histogram(&metrics, POLL).unwrap().counts, own);
        let (least, most) = (0..buckets).fold((0.0, 0.0), |(least, most), bucket| {
            let range = tokio.poll_time_histogram_bucket_range(bucket);
            let count = own[bucket] as f64;
            (least + count * range.start.as_secs_f64(), most + count * range.end.as_secs_f64())
        });
        assert!((least..=most).contains(&exported.sum), "{least} {} {most}", exported.sum);
    }
}

#[test]
fn every_schedule_delay_is_in_its_bucket() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let runtime = with_histograms(2);
    init(&provider, &runtime);
    run(&runtime, 300);
    let exported = reader.point(SCHEDULE).unwrap();
    let tokio = runtime.metrics();
    let own: Vec<u64> = (0..tokio.schedule_latency_histogram_num_buckets())
        .map(|bucket| {
            (0..2).map(|worker| tokio.schedule_latency_histogram_bucket_count(worker, bucket)).sum()
        })
        .collect();
    assert_eq!(exported.counts, own);
    assert!(own.iter().sum::<u64>() >= 300);
}

#[test]
fn a_second_init_doubles_no_poll() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let runtime = with_histograms(1);
    init(&provider, &runtime);
    init(&provider, &runtime);
    for tasks in [10, 20] {
        run(&runtime, tasks);
        assert_eq!(reader.count(POLL), runtime.metrics().worker_poll_count(0));
    }
}

#[test]
fn a_histogram_is_registered_as_soon_as_a_runtime_has_one() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let without = tokio_runtime();
    let metrics = init(&provider, &without);
    assert_eq!(reader.count(POLL), 0);
    let runtime = with_histograms(1);
    metrics.watch_runtime("", runtime.handle());
    run(&runtime, 10);
    assert_eq!(reader.count(POLL), runtime.metrics().worker_poll_count(0));
}

#[test]
fn a_successor_continues_the_series() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let builder = RuntimeMetrics::builder().probe_interval(Duration::ZERO);
    let metrics = builder.build(&provider.meter("test"));
    let mut polls = 0;
    for _ in 0..3 {
        let runtime = with_histograms(1);
        metrics.watch_runtime("same", runtime.handle());
        run(&runtime, 10);
        polls += runtime.metrics().worker_poll_count(0);
        assert_eq!(reader.count(POLL), polls);
        assert_eq!(histogram(&metrics, POLL).unwrap().counts.iter().sum::<u64>(), polls);
    }
}

#[test]
fn polls_that_were_never_collected_outlive_their_runtime() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let mut polls = 0;
    let metrics = RuntimeMetrics::builder().probe_interval(Duration::ZERO).build(&provider.meter("test"));
    for tasks in [10, 20] {
        let runtime = with_histograms(1);
        metrics.watch_runtime("", runtime.handle());
        run(&runtime, tasks);
        polls += runtime.metrics().worker_poll_count(0);
    }
    let runtime = with_histograms(1);
    metrics.watch_runtime("", runtime.handle());
    run(&runtime, 5);
    polls += runtime.metrics().worker_poll_count(0);
    assert_eq!(reader.count(POLL), polls);
}

#[test]
fn every_unstable_row_equals_tokio_s_value() {
    let runtime = with_histograms(2);
    let provider = provider(&[]);
    let metrics = init(&provider, &runtime);
    run(&runtime, 100);
    runtime.block_on(runtime.spawn_blocking(|| ())).unwrap();
    let snapshot = metrics.snapshot();
    for family in opentelemetry_instrumentation_runtime::catalogue() {
        for metric in family.metrics.iter().filter(|metric| metric.name().starts_with("tokio.")) {
            let measured_by_the_watcher =
                metric.name() == DELAY || metric.name().starts_with("tokio.worker.stall");
            let reading = snapshot.get(metric.name());
            assert_eq!(reading.is_some(), !measured_by_the_watcher, "{}", metric.name());
            if let Some(reading) = reading {
                let histograms = reading.points().iter().all(|point| point.value().as_f64().is_none());
                assert_eq!(histograms, metric.kind() == Kind::Histogram);
            }
        }
    }
    let tokio = runtime.metrics();
    let total = |read: &dyn Fn(usize) -> u64| (0..2).map(read).sum::<u64>() as f64;
    let expected = [
        ("tokio.task.spawned", tokio.spawned_tasks_count() as f64),
        ("tokio.task.polls", total(&|worker| tokio.worker_poll_count(worker))),
        ("tokio.task.forced_yields", tokio.budget_forced_yield_count() as f64),
        ("tokio.worker.steals", total(&|worker| tokio.worker_steal_count(worker))),
        ("tokio.worker.steal.operations", total(&|worker| tokio.worker_steal_operations(worker))),
        ("tokio.worker.noops", total(&|worker| tokio.worker_noop_count(worker))),
        ("tokio.queue.overflows", total(&|worker| tokio.worker_overflow_count(worker))),
        ("tokio.blocking.queue.length", tokio.blocking_queue_depth() as f64),
        ("tokio.io_driver.fd.count", 0.0),
        ("tokio.io_driver.ready_events", 0.0),
    ];
    for (name, value) in expected {
        assert_eq!(runtimes::value(&metrics, name), Some(value), "{name}");
    }
    let values = |name| runtimes::values(&metrics, name);
    let pair = |key: &str, value: f64| (vec![key.to_owned()], value);
    let local = total(&|worker| tokio.worker_local_schedule_count(worker));
    let remote = tokio.remote_schedule_count() as f64;
    assert_eq!(values("tokio.task.schedules"), [pair("local", local), pair("remote", remote)]);
    let idle = tokio.num_idle_blocking_threads() as f64;
    let active = tokio.num_blocking_threads() as f64 - idle;
    assert_eq!(values("tokio.blocking.thread.count"), [pair("active", active), pair("idle", idle)]);
    assert_eq!(values("tokio.queue.length"), [pair("global", 0.0), pair("local", 0.0)]);
}

#[test]
fn descriptors_of_the_io_driver_come_and_go() {
    let runtime = runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let provider = provider(&[]);
    let metrics = init(&provider, &runtime);
    let open = || runtimes::value(&metrics, "tokio.io_driver.fd.count").unwrap();
    let before = open();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    assert_eq!(open(), before + 1.0);
    drop(listener);
    assert_eq!(open(), before);
}
