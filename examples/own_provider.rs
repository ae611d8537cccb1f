//! A meter provider of your own, with any exporter: `cargo run --example own_provider --features view`
//!
//! This library then only registers its instruments, and its view keeps them small. Flushing and shutting down is up to
//! the provider.

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{CountingAllocator, init_runtime_metrics, view};
use opentelemetry_sdk::metrics::SdkMeterProvider;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = SdkMeterProvider::builder()
        .with_periodic_exporter(opentelemetry_stdout::MetricExporter::default())
        .with_view(view)
        .build();
    init_runtime_metrics(&provider.meter("my-service"));
    provider.shutdown()?;
    Ok(())
}
