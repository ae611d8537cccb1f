//! A `current_thread` program: `cargo run --example current_thread --features otlp`
//!
//! Flush and shutdown are called on the only thread that the runtime has, which can do nothing else meanwhile. They
//! work all the same, since the export has a thread and a runtime of its own.

use opentelemetry_instrumentation_runtime::{CountingAllocator, init_runtime_metrics, otlp};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let telemetry = otlp::install()?;
    init_runtime_metrics(&telemetry.meter());
    tokio::task::yield_now().await;
    telemetry.force_flush()?;
    telemetry.shutdown()?;
    Ok(())
}
