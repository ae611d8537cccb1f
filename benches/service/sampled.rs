//! The service with everything on and a heap profile at its default mean.

use std::alloc::System;

use opentelemetry_instrumentation_runtime::profile::HeapProfile;
use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};

mod app;
mod everything;

#[global_allocator]
static GLOBAL: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

fn main() {
    // The walk through a function costs a hundred times as much the first time. A service does that in its first hours; this one
    // takes samples often until it is measured.
    everything::run(
        |builder| builder.heap_profile(4096),
        |number| {
            if number == 400 {
                HeapProfile::running()
                    .expect("a heap profile")
                    .restart(HeapProfile::DEFAULT_MEAN)
                    .expect("it runs");
            }
        },
    );
}
