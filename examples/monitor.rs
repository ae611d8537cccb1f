//! Reports without a backend: each second a line of JSON and a line in the style of Go's memory statistics.
//!
//!     cargo run --release --example monitor --features monitor

use std::time::Duration;

use opentelemetry_instrumentation_runtime::{CountingAllocator, Monitor, TaskExt, init_runtime_metrics};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::system();

#[tokio::main]
async fn main() {
    // The global provider is not set: nothing is exported.
    let metrics = init_runtime_metrics(&opentelemetry::global::meter("example"));
    let second = Duration::from_secs(1);
    let _lines = Monitor::start(&metrics, second, std::io::stdout());
    let _memstats = Monitor::memstats(&metrics, second, std::io::stdout());

    let leak = async {
        let mut kept = Vec::new();
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            kept.push(vec![0_u8; 100_000]);
        }
    };
    let _ = tokio::spawn(leak.with_task_name("leak")).await;
}
