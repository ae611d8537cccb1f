//! A program with a current-thread runtime: `cargo run --example current_thread --features otlp`
//!
//! Flush and shutdown block the only thread of the runtime. They work, since the exporter has its own thread and
//! runtime.

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
