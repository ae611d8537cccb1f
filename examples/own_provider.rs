//! A meter provider built by the program, with the exporter of `opentelemetry-otlp`:
//! `cargo run --example own_provider --features view`, with a collector on localhost:4317.
//!
//! The library only registers its instruments, and its view limits their memory. The program flushes and shuts down the
//! provider.

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{CountingAllocator, init_runtime_metrics, view};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::metrics::SdkMeterProvider;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let exporter = MetricExporter::builder().with_tonic().build()?;
    let provider = SdkMeterProvider::builder().with_periodic_exporter(exporter).with_view(view).build();
    init_runtime_metrics(&provider.meter("my-service"));
    provider.shutdown()?;
    Ok(())
}
