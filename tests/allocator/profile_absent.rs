//! A global allocator that counts but cannot sample: the error says so, and nothing else changes.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::profile::{self, Error, HeapProfile};
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, measure};
use opentelemetry_sdk::metrics::SdkMeterProvider;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

#[test]
fn the_error_names_the_reason() {
    assert_eq!(HeapProfile::start(1).unwrap_err(), Error::NotSampled);
    assert!(HeapProfile::running().is_none());
    for profile in [profile::heap(), profile::allocs()] {
        assert_eq!(profile.error(), Some(&Error::NotSampled));
        assert!(profile.samples().is_empty());
        assert_eq!(profile.sample_types().len(), 4);
        assert!(!profile.to_pprof().is_empty(), "an empty profile is a valid file");
    }
    // The builder warns and continues.
    let metrics = RuntimeMetrics::builder().heap_profile(1).build(&SdkMeterProvider::default().meter("test"));
    assert!(metrics.snapshot().get("rust.memory.used").is_some());
    assert_eq!(measure(|| drop(std::hint::black_box(Box::new(0_u64)))).1.allocated, 8);
}
