//! A real reader exports exactly what the rows declare.

use support::reader;

use std::alloc::System;
use std::collections::{BTreeMap, BTreeSet};

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{
    Availability, CountingAllocator, Group, Kind, Metric, RuntimeMetrics, Sampled, TaskExt, catalogue,
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use reader::{Exported, Reader};

#[global_allocator]
static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

/// Turns everything on, on a runtime that has run tasks.
async fn export(per_worker: bool) -> BTreeMap<String, Exported> {
    let reader = Reader::cumulative();
    let provider = SdkMeterProvider::builder().with_reader(reader.clone()).build();
    let metrics = RuntimeMetrics::builder()
        .disk_io(true)
        .heap_profile(1)
        .glibc(true)
        .size_classes(per_worker)
        .task_scheduled_time(true)
        .per_worker(per_worker)
        .build(&provider.meter("test"));
    tokio::spawn(async { vec![1, 2, 3] }.with_task_name("worker")).await.unwrap();
    // The watcher's first probe makes `tokio.schedule.delay` exist.
    while metrics.snapshot().get("tokio.schedule.delay").is_none() {
        tokio::task::yield_now().await;
    }
    reader.export()
}

/// Whether this build must, may or cannot export a metric.
#[derive(Debug, PartialEq)]
enum Presence {
    Must,
    May,
    Never,
}

fn presence(family: &Group, metric: &Metric) -> Presence {
    match (family.name, metric.name()) {
        // This program uses another allocator.
        ("jemalloc" | "mimalloc", _) => Presence::Never,
        // Only in a control group with such a limit.
        (_, "rust.memory.limit" | "rust.cpu.throttled.time" | "rust.cpu.throttles") => Presence::May,
        // The kernel may forbid it.
        (_, "process.disk.io") => Presence::May,
        // Only for runtimes that are built with them.
        (_, "tokio.task.poll.duration" | "tokio.schedule.duration") => Presence::Never,
        _ if metric.availability() == Availability::Unstable && !cfg!(tokio_unstable) => Presence::Never,
        ("glibc", _) if !cfg!(target_env = "gnu") => Presence::Never,
        ("process" | "limits", _) if !cfg!(target_os = "linux") => Presence::Never,
        _ => Presence::Must,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_exported_is_a_row_and_every_row_is_exported() {
    for per_worker in [false, true] {
        let mut exported = export(per_worker).await;
        for family in catalogue() {
            for metric in &family.metrics {
                let found = exported.remove(metric.name());
                let must = presence(&family, metric);
                match &found {
                    None => assert_ne!(must, Presence::Must, "{} is missing", metric.name()),
                    Some(found) => {
                        assert_ne!(must, Presence::Never, "{} is there: {found:?}", metric.name());
                        compare(&family, metric, found, per_worker);
                    }
                }
            }
        }
        assert!(exported.is_empty(), "no row says so: {exported:?}");
    }
}

fn compare(family: &Group, metric: &Metric, exported: &Exported, on_request: bool) {
    let name = metric.name();
    let (kind, monotonic) = match metric.kind() {
        Kind::Counter => ("sum", true),
        Kind::UpDownCounter => ("sum", false),
        Kind::Gauge => ("gauge", false),
        Kind::Histogram => ("histogram", false),
        kind => panic!("{name}: {kind:?}"),
    };
    assert_eq!((exported.kind, exported.monotonic), (kind, monotonic), "{name}");
    assert_eq!(exported.float, metric.unit() == "s", "{name}");
    assert_eq!(exported.unit, metric.unit(), "{name}");
    assert_eq!(exported.description, metric.description(), "{name}");
    let keys: BTreeSet<&str> =
        exported.points.iter().flat_map(|point| point.attributes.keys()).map(String::as_str).collect();
    // A single runtime without a name needs none.
    let common = family.attributes.iter().copied().filter(|key| *key != "tokio.runtime.name");
    let asked_for = metric.opt_in_attribute().filter(|_| on_request);
    let expected: BTreeSet<&str> = common.chain(metric.attribute()).chain(asked_for).collect();
    assert_eq!(keys, expected, "{name}");
}
