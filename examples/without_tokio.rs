//! A program without Tokio: `cargo run --example without_tokio --features otlp`
//!
//! The allocator, the process and its limits are reported. There is no runtime, hence no `tokio.*`.

use opentelemetry_instrumentation_runtime::{CountingAllocator, init_runtime_metrics, otlp};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let telemetry = otlp::install()?;
    init_runtime_metrics(&telemetry.meter());
    let primes = (2..20_000_u32).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0));
    println!("{} primes", primes.collect::<Vec<_>>().len());
    telemetry.shutdown()?;
    Ok(())
}
