//! The service with everything on but the heap profile.

use opentelemetry_instrumentation_runtime::CountingAllocator;

mod app;
mod everything;

#[global_allocator]
static GLOBAL: CountingAllocator = CountingAllocator::system();

fn main() {
    everything::run(|builder| builder, |_| {});
}
