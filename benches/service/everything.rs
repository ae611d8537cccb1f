//! The service with everything on, for any global allocator that counts.

use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{Builder, RuntimeMetrics, TaskExt};
use opentelemetry_sdk::metrics::SdkMeterProvider;

use crate::app;

/// Runs the service, and prints its allocations, its reallocations and its resident memory.
pub(crate) fn run(configure: impl FnOnce(Builder) -> Builder, mut now_and_then: impl FnMut(usize)) {
    let provider = SdkMeterProvider::default();
    let metrics = std::cell::OnceCell::new();
    app::run(
        async |listener, app| {
            let everything = RuntimeMetrics::builder()
                .size_classes(true)
                .per_worker(true)
                .disk_io(true)
                // Callgrind slows a program down fifty times, while the probe follows the clock.
                .probe_interval(Duration::from_secs(5));
            let _ = metrics.set(configure(everything).build(&provider.meter("service")));
            tokio::spawn(async { axum::serve(listener, app).await }.with_task_name("server"));
        },
        |number| {
            now_and_then(number);
            // Far more often than a reader collects.
            if number % 3_000 == 0 {
                drop(metrics.get().map(RuntimeMetrics::snapshot));
            }
        },
    );
    let snapshot = metrics.get().map(RuntimeMetrics::snapshot);
    for name in ["rust.memory.allocations", "rust.memory.reallocations", "process.memory.usage"] {
        let reading = snapshot.as_ref().and_then(|snapshot| snapshot.get(name));
        let points = reading.iter().flat_map(|reading| reading.points());
        println!("{}", points.filter_map(|point| point.value().as_f64()).sum::<f64>());
    }
}
