//! The memory that the instruments request at the start, counted by the counting allocator.

use support::receiver;

use std::time::Duration;

use opentelemetry::metrics::{MeterProvider, noop::NoopMeterProvider};
use opentelemetry_instrumentation_runtime::{
    CountingAllocator, RuntimeMetrics, TaskExt, measure, otlp, view,
};
use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider};
use receiver::Receiver;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

/// Registers every metric, with a named task, and returns the requested bytes.
fn requested(provider: &SdkMeterProvider) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let _inside = runtime.enter();
    runtime.block_on(async {}.with_task_name("one"));
    // Without `glibc`, which makes a large allocation to find out if glibc is in use.
    let everything = RuntimeMetrics::builder().per_worker(true).size_classes(true).disk_io(true);
    let (metrics, stats) = measure(|| everything.build(&provider.meter("ours")));
    metrics.stop();
    stats.allocated
}

#[test]
fn the_view_takes_it_from_megabytes_to_less_than_one() {
    let reader = || ManualReader::builder().build();
    let without = requested(&SdkMeterProvider::builder().with_reader(reader()).build());
    let with = requested(&SdkMeterProvider::builder().with_reader(reader()).with_view(view).build());
    eprintln!("requested at the start: {without} bytes without the view, {with} with it");
    assert!(without > 4_000_000, "{without}: is the view still needed?");
    assert!(with < 1_000_000, "{with}");
}

#[test]
fn otlp_has_it_built_in() {
    let receiver = Receiver::start();
    let hour = Duration::from_secs(3600);
    let telemetry = otlp::builder().endpoint(receiver.endpoint()).interval(hour).build().unwrap();
    let bytes = requested(telemetry.provider());
    assert!(bytes < 1_000_000, "{bytes}");
}

#[test]
fn it_leaves_room_for_all_names_of_tasks_and_other_instruments_alone() {
    const NAMES: usize = 250;
    // On another meter, since the settings belong to the process.
    RuntimeMetrics::builder().task_name_limit(NAMES).build(&NoopMeterProvider::new().meter("settings"));
    let receiver = Receiver::start();
    let hour = Duration::from_secs(3600);
    let telemetry = otlp::builder().endpoint(receiver.endpoint()).interval(hour).build().unwrap();
    let meter = telemetry.provider().meter("app");
    let name = |number| [opentelemetry::KeyValue::new("name", number)];
    let series = |instrument: &str, count: i64| {
        let instrument = meter.u64_counter(instrument.to_owned()).build();
        (0..count).for_each(|number| instrument.add(1, &name(number)));
    };
    // Each name and the rest, with three outcomes each.
    let ended = 3 * (NAMES as i64 + 1);
    series("rust.task.ended", ended);
    series("application", 1500);
    telemetry.force_flush().unwrap();
    let export = receiver.last().unwrap();
    let points = |name| receiver::points(export.metric(name).unwrap());
    assert_eq!(points("rust.task.ended").len() as i64, ended);
    assert_eq!(points("application").len(), 1500);
}
