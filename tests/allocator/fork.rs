//! The counters of a child after `fork` continue from the parent's. They count the whole process, hence one test function.

#![cfg(unix)]

use std::hint::black_box;
use std::thread;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, measure};
use opentelemetry_sdk::metrics::SdkMeterProvider;

#[path = "../support/fork.rs"]
mod fork;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

#[test]
fn the_counters_of_a_child_continue() {
    let provider = SdkMeterProvider::default();
    let metrics = RuntimeMetrics::builder().build(&provider.meter("test"));
    let allocated = || {
        let snapshot = metrics.snapshot();
        snapshot.get("rust.memory.allocated").unwrap().value().unwrap().as_u64().unwrap()
    };
    // The child keeps the counts of a thread that it does not have.
    thread::spawn(|| drop(black_box(vec![0_u8; 1_000_000]))).join().unwrap();
    allocated();
    let parent = allocated();
    assert!(parent >= 1_000_000);

    fork::child(|| {
        let work = || drop(black_box(vec![0_u8; 500_000]));
        let continues = allocated() >= parent;
        let (_, stats) = measure(work);
        let exact = stats.allocated == 500_000 && stats.deallocations == 1;
        let thread = thread::spawn(work).join().is_ok();
        let total = allocated() >= parent + 1_000_000;
        [continues, exact, thread, total]
    });
}
