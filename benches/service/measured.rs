//! The service with everything on.

use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, TaskExt};
use opentelemetry_sdk::metrics::SdkMeterProvider;

mod app;

#[global_allocator]
static GLOBAL: CountingAllocator = CountingAllocator::system();

fn main() {
    let provider = SdkMeterProvider::default();
    let metrics = std::cell::OnceCell::new();
    app::run(
        async |listener, app| {
            let everything = RuntimeMetrics::builder()
                .size_classes(true)
                .per_worker(true)
                .disk_io(true)
                // Callgrind slows a program down fifty times, while the probe follows the clock.
                .probe_interval(Duration::from_secs(5))
                .build(&provider.meter("service"));
            let _ = metrics.set(everything);
            tokio::spawn(async { axum::serve(listener, app).await }.with_task_name("server"));
        },
        // Far more often than a reader collects.
        || drop(metrics.get().map(RuntimeMetrics::snapshot)),
    );
    let snapshot = metrics.get().map(RuntimeMetrics::snapshot);
    for name in ["rust.memory.allocations", "rust.memory.reallocations"] {
        let reading = snapshot.as_ref().and_then(|snapshot| snapshot.get(name));
        let points = reading.iter().flat_map(|reading| reading.points());
        println!("{}", points.filter_map(|point| point.value().as_f64()).sum::<f64>());
    }
}
