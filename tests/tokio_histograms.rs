//! Each value of a histogram reaches exactly one instrument, exactly once, in its bucket.

use support::reader;
use support::runtimes;

use std::thread;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{Point, RuntimeMetrics, Value, init_runtime_metrics};
use opentelemetry_sdk::metrics::Temporality;
use reader::{Reader, provider};
use runtimes::{TICK, build, histogram, looks, tokio_runtime, until};

const DELAY: &str = "tokio.schedule.delay";

fn snapshot_count(metrics: &RuntimeMetrics) -> u64 {
    histogram(metrics, DELAY).unwrap().counts.iter().sum()
}

#[test]
fn exported_delays_are_those_of_snapshots() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let runtime = tokio_runtime();
    let _entered = runtime.enter();
    let metrics = init_runtime_metrics(&provider.meter("test"));
    looks(&metrics, 3);
    // Blocks one worker for long enough to show in the sum.
    runtime.block_on(async {
        for _ in 0..2 {
            runtime.spawn(async { thread::sleep(3 * TICK) });
        }
    });
    looks(&metrics, 3);
    let before = histogram(&metrics, DELAY).unwrap();
    let exported = reader.point(DELAY).unwrap();
    let after = histogram(&metrics, DELAY).unwrap();
    let bounds = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ];
    assert_eq!(exported.bounds, bounds);
    for ((before, now), after) in before.counts.iter().zip(&exported.counts).zip(&after.counts) {
        assert!((before..=after).contains(&now), "{before:?} {exported:?} {after:?}");
    }
    assert!(
        (before.sum - 1e-6..=after.sum + 1e-6).contains(&exported.sum),
        "{before:?} {exported:?} {after:?}"
    );
    assert!(exported.sum > 0.1, "the probe had to wait: {exported:?}");
}

/// Both runtimes are watched at the same ticks, so that the counts can be compared on any machine.
#[test]
fn a_runtime_without_work_is_probed_less_often() {
    const COUNT: u64 = 40;
    let (busy, idle) = (tokio_runtime(), tokio_runtime());
    let builder = RuntimeMetrics::builder().probe_interval(TICK / 5);
    let metrics = build(builder.runtime("busy", busy.handle()).runtime("idle", idle.handle()));
    let work = async {
        loop {
            thread::sleep(TICK / 100);
            tokio::task::yield_now().await;
        }
    };
    let work = busy.spawn(work);
    let counts = || {
        let snapshot = metrics.snapshot();
        let count = |point: &Point| match point.value() {
            Value::Histogram(delays) => delays.counts.iter().sum::<u64>(),
            other => panic!("{other:?}"),
        };
        let counts: Vec<_> = snapshot.get(DELAY)?.points().iter().map(count).collect();
        Some((*counts.first()?, *counts.get(1)?))
    };
    let (busy, idle) = until("enough delays", || counts().filter(|(busy, _)| *busy >= COUNT));
    work.abort();
    assert!((1..=busy / 2).contains(&idle), "{idle} of an idle runtime, {busy} of a busy one");
}

#[test]
fn a_second_init_on_the_same_meter_doubles_no_delay() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let runtime = tokio_runtime();
    let _entered = runtime.enter();
    let meter = provider.meter("test");
    let metrics = [init_runtime_metrics(&meter), init_runtime_metrics(&meter)];
    looks(&metrics[1], 3);
    let before = snapshot_count(&metrics[0]);
    let exported = reader.count(DELAY);
    assert!((before..=snapshot_count(&metrics[1])).contains(&exported));
}

#[test]
fn a_delay_goes_to_the_first_subscriber_and_after_its_stop_to_the_next() {
    let readers = [Reader::cumulative(), Reader::cumulative()];
    let providers = [provider(&[&readers[0]]), provider(&[&readers[1]])];
    let runtime = tokio_runtime();
    let _entered = runtime.enter();
    let metrics = [0, 1].map(|index: usize| init_runtime_metrics(&providers[index].meter("test")));
    looks(&metrics[0], 2);
    let first = readers[0].count(DELAY);
    assert!(first >= 2);
    assert_eq!(readers[1].count(DELAY), 0);
    metrics[0].stop();
    looks(&metrics[1], 2);
    let before = snapshot_count(&metrics[1]);
    let second = readers[1].count(DELAY);
    assert!(second >= 2);
    let all = first + second;
    assert!((before..=snapshot_count(&metrics[1])).contains(&all), "{before} {first} {second}");
    assert_eq!(readers[0].count(DELAY), first, "it has stopped");
}

#[test]
fn each_of_two_readers_gets_every_delay() {
    let readers = [Reader::cumulative(), Reader::new(Temporality::Delta)];
    let provider = provider(&[&readers[0], &readers[1]]);
    let runtime = tokio_runtime();
    let _entered = runtime.enter();
    let metrics = init_runtime_metrics(&provider.meter("test"));
    let mut delta = 0;
    for _ in 0..3 {
        looks(&metrics, 2);
        readers[0].count(DELAY);
        delta += readers[1].count(DELAY);
    }
    runtime.block_on(async {});
    drop(runtime);
    let cumulative = readers[0].count(DELAY);
    delta += readers[1].count(DELAY);
    assert_eq!(delta, cumulative);
}

#[test]
fn the_last_delays_of_a_runtime_outlive_it() {
    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    let metrics = RuntimeMetrics::builder().build(&provider.meter("test"));
    let mut total = 0;
    for _ in 0..3 {
        let runtime = tokio_runtime();
        metrics.watch_runtime("", runtime.handle());
        looks(&metrics, 2);
        total = snapshot_count(&metrics);
    }
    assert!(total >= 6);
    assert!(reader.count(DELAY) >= total, "none of it was ever collected");
    let exported = reader.count(DELAY);
    assert_eq!(reader.count(DELAY), exported);
}

#[cfg(not(tokio_unstable))]
#[test]
fn without_tokio_unstable_no_unstable_row_has_a_point() {
    let runtime = tokio_runtime();
    let metrics = runtimes::build(RuntimeMetrics::builder().runtime("", runtime.handle()));
    let snapshot = metrics.snapshot();
    let mut rows = 0;
    for family in opentelemetry_instrumentation_runtime::catalogue() {
        for metric in family.metrics.iter().filter(|metric| metric.name().starts_with("tokio.")) {
            let unstable =
                metric.availability() == opentelemetry_instrumentation_runtime::Availability::Unstable;
            assert_eq!(snapshot.get(metric.name()).is_none(), unstable, "{}", metric.name());
            rows += usize::from(unstable);
        }
    }
    assert_eq!(rows, 14);
}
