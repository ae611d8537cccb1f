//! Collections of a provider: before, during and after a runtime, with one registration and two, with one reader and two.

use support::reader;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use opentelemetry::metrics::{MeterProvider, noop::NoopMeterProvider};
use opentelemetry_instrumentation_runtime::{RuntimeMetrics, init_runtime_metrics};
use opentelemetry_sdk::metrics::{Aggregation, Instrument, SdkMeterProvider, Stream, Temporality};
use reader::{Reader, provider};
use tokio::runtime::Runtime;

const TASKS: &str = "tokio.task.count";

fn tokio_runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

/// Keeps tasks alive on a runtime and counts them.
fn spawn_sleepers(runtime: &Runtime, count: usize) {
    for _ in 0..count {
        runtime.spawn(std::future::pending::<()>());
    }
}

#[test]
fn the_current_runtime_is_watched_by_default() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let runtime = tokio_runtime();
    let _entered = runtime.enter();
    init_runtime_metrics(&provider.meter("test"));
    spawn_sleepers(&runtime, 3);
    assert_eq!(reader.value(TASKS), Some(3.0));
    spawn_sleepers(&runtime, 2);
    assert_eq!(reader.value(TASKS), Some(5.0), "each collection reads anew");
}

#[test]
fn outside_a_runtime_nothing_of_tokio_is_reported_until_one_is_watched() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let metrics = init_runtime_metrics(&provider.meter("test"));
    assert_eq!(reader.value(TASKS), None);
    let runtime = tokio_runtime();
    spawn_sleepers(&runtime, 1);
    metrics.watch_runtime("", runtime.handle());
    assert_eq!(reader.value(TASKS), Some(1.0));
}

#[test]
fn a_second_init_on_the_same_meter_doubles_nothing() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let runtime = tokio_runtime();
    let _entered = runtime.enter();
    spawn_sleepers(&runtime, 3);
    let meter = provider.meter("test");
    init_runtime_metrics(&meter);
    init_runtime_metrics(&meter);
    assert_eq!(reader.value(TASKS), Some(3.0));
}

#[test]
fn two_providers_see_the_same() {
    let (first, second) = (Reader::cumulative(), Reader::cumulative());
    let providers = [provider(&[&first]), provider(&[&second])];
    let runtime = tokio_runtime();
    let _entered = runtime.enter();
    spawn_sleepers(&runtime, 3);
    for provider in &providers {
        init_runtime_metrics(&provider.meter("test"));
    }
    assert_eq!([first.value(TASKS), second.value(TASKS)], [Some(3.0); 2]);
}

#[test]
fn a_view_that_drops_the_first_instrument_does_not_freeze_the_rest() {
    let reader = Reader::cumulative();
    let first = AtomicBool::new(true);
    let provider = SdkMeterProvider::builder()
        .with_reader(reader.clone())
        .with_view(move |_: &Instrument| {
            let drop = Stream::builder().with_aggregation(Aggregation::Drop).build();
            first.swap(false, Relaxed).then(|| drop.unwrap())
        })
        .build();
    let runtime = tokio_runtime();
    let _entered = runtime.enter();
    init_runtime_metrics(&provider.meter("test"));
    for tasks in 1..=3 {
        spawn_sleepers(&runtime, 1);
        assert_eq!(reader.value(TASKS), Some(f64::from(tasks)));
    }
}

#[test]
fn stop_ends_every_stream_and_frees_the_sources() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let runtime = tokio_runtime();
    let _entered = runtime.enter();
    let metrics = init_runtime_metrics(&provider.meter("test"));
    assert!(reader.export().contains_key(TASKS));
    metrics.stop();
    // OpenTelemetry cannot remove a histogram's counts: its stream stays.
    let stopped = reader.export();
    assert!(stopped.values().all(|metric| metric.kind == "histogram"), "{stopped:?}");
    assert!(metrics.snapshot().readings().is_empty());
    assert_eq!(format!("{metrics:?}"), r#"{"all": "stopped"}"#);
    metrics.stop();
    metrics.watch_runtime("late", runtime.handle());
    assert_eq!(reader.export(), stopped, "stopped for good");
}

#[test]
fn dropping_the_result_stops_nothing() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let runtime = tokio_runtime();
    let _entered = runtime.enter();
    drop(init_runtime_metrics(&provider.meter("test")));
    assert!(!reader.export().is_empty());
}

#[test]
fn a_no_op_meter_is_accepted() {
    let metrics = init_runtime_metrics(&NoopMeterProvider::new().meter("test"));
    assert!(!metrics.snapshot().readings().is_empty(), "a snapshot needs no provider");
}

#[test]
fn the_debug_form_says_which_sources_are_on_and_why_others_are_not() {
    let metrics = RuntimeMetrics::builder().process(false).build(&NoopMeterProvider::new().meter("test"));
    let text = format!("{metrics:?}");
    assert!(text.contains(r#""tokio": "nothing to read yet""#), "{text}");
    assert!(text.contains(r#""process": "turned off""#), "{text}");
}

/// Two readers of one provider on two threads, one of them with delta temporality. The SDK writes each observation into the
/// state of both, so that an older value after a newer one would be a negative delta.
#[test]
fn two_readers_at_once_never_see_a_counter_fall() {
    let (cumulative, delta) = (Reader::cumulative(), Reader::new(Temporality::Delta));
    let provider = provider(&[&cumulative, &delta]);
    let runtime = tokio_runtime();
    let _entered = runtime.enter();
    init_runtime_metrics(&provider.meter("test"));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Raises the counters while the readers collect.
        scope.spawn(|| {
            while !done.load(Relaxed) {
                runtime.block_on(async { tokio::spawn(async {}).await.unwrap() });
            }
        });
        let deltas = scope.spawn(|| {
            for _ in 0..1_000 {
                for (name, metric) in delta.export() {
                    // An overflow would panic in the SDK or come out as about 1.8e19.
                    assert!(
                        metric.points.iter().all(|point| (0.0..1e18).contains(&point.value)),
                        "{name}: {metric:?}"
                    );
                }
            }
        });
        let totals = scope.spawn(|| {
            let mut last = BTreeMap::new();
            for _ in 0..1_000 {
                for (name, metric) in cumulative.export() {
                    for point in metric.points.iter().filter(|_| metric.monotonic) {
                        let before = last.insert((name.clone(), point.attributes.clone()), point.value);
                        assert!(
                            before.is_none_or(|before| before <= point.value),
                            "{name}: {before:?} {point:?}"
                        );
                    }
                }
            }
        });
        let results = [deltas.join(), totals.join()];
        done.store(true, Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
}

#[test]
fn deltas_add_up_to_the_cumulative_total() {
    let (cumulative, delta) = (Reader::cumulative(), Reader::new(Temporality::Delta));
    let provider = provider(&[&cumulative, &delta]);
    let runtime = tokio_runtime();
    let _entered = runtime.enter();
    init_runtime_metrics(&provider.meter("test"));
    let parks = |reader: &Reader| -> f64 {
        reader.export()["tokio.worker.parks"].points.iter().map(|point| point.value).sum()
    };
    let mut sum = 0.0;
    for _ in 0..20 {
        runtime.block_on(async { tokio::spawn(async {}).await.unwrap() });
        sum += parks(&delta);
    }
    // The workers may still be going to sleep. The two agree once nothing changes in between.
    loop {
        let before = parks(&cumulative);
        sum += parks(&delta);
        if before == parks(&cumulative) {
            assert!(before > 0.0, "parks were counted");
            assert_eq!(sum, before);
            break;
        }
    }
}
