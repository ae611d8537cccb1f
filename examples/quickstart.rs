//! The shortest service that reports everything: `cargo run --example quickstart --features otlp`
//!
//! It sends to `http://localhost:4318`, or to the endpoint in `OTEL_EXPORTER_OTLP_ENDPOINT`.

use opentelemetry_instrumentation_runtime::{CountingAllocator, TaskExt, init_runtime_metrics, otlp};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let telemetry = otlp::install()?;
    init_runtime_metrics(&telemetry.meter());
    tokio::spawn(serve().with_task_name("server")).await?;
    telemetry.shutdown()?;
    Ok(())
}

/// Stands for the work of the service.
async fn serve() {
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
}
