//! A program without the counting allocator reports nothing about memory. The system's allocator serves it, so that
//! glibc's statistics are available on request.

use std::hint::black_box;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{AllocationStats, RuntimeMetrics, Snapshot, measure};
use opentelemetry_sdk::metrics::SdkMeterProvider;

fn names(snapshot: &Snapshot, prefix: &str) -> Vec<&'static str> {
    let names = snapshot.readings().iter().map(|reading| reading.metric().name());
    names.filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn rust_memory_has_no_points() {
    let provider = SdkMeterProvider::default();
    let metrics = RuntimeMetrics::builder().build(&provider.meter("test"));
    let of_the_allocator: Vec<_> = names(&metrics.snapshot(), "rust.memory.")
        .into_iter()
        .filter(|name| *name != "rust.memory.limit")
        .collect();
    assert_eq!(of_the_allocator, Vec::<&str>::new());
    assert!(format!("{metrics:?}").contains("CountingAllocator is not the global allocator"));
    assert_eq!(measure(|| drop(black_box(Box::new(1)))).1, AllocationStats::default());
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn glibc_is_reported_on_request() {
    let provider = SdkMeterProvider::default();
    let silent = RuntimeMetrics::builder().build(&provider.meter("silent"));
    assert_eq!(names(&silent.snapshot(), "glibc."), Vec::<&str>::new());

    let metrics = RuntimeMetrics::builder().glibc(true).build(&provider.meter("test"));
    let read = || {
        let snapshot = metrics.snapshot();
        ["arena", "mapped", "used", "free"].map(|name| {
            snapshot.get(&format!("glibc.memory.{name}")).unwrap().value().unwrap().as_u64().unwrap()
        })
    };
    let before = read();
    let small: Vec<_> = (0..10_000).map(|_| black_box(Box::new([0_u8; 100]))).collect();
    let large = black_box(Vec::<u8>::with_capacity(64 << 20));
    let after = read();
    assert!(
        after[0] > 0 && after[0] == after[2] + after[3],
        "what is not used of the arenas is free: {after:?}"
    );
    assert!(after[1] >= before[1] + (64 << 20), "{before:?} {after:?}");
    assert!(after[2] >= before[2] + 1_000_000, "{before:?} {after:?}");
    drop((small, large));
}
