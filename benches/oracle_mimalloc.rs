//! The statistics of mimalloc as the global allocator.

use std::hint::black_box;

use mimalloc::MiMalloc;
use opentelemetry::global;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics};

#[global_allocator]
static GLOBAL: CountingAllocator<MiMalloc> = CountingAllocator::new(MiMalloc);

#[test]
fn only_the_global_allocator_is_reported() {
    let metrics = RuntimeMetrics::builder().glibc(true).build(&global::meter("oracles"));
    let read = || {
        let snapshot = metrics.snapshot();
        let value = |name| snapshot.get(name).unwrap().value().unwrap().as_u64().unwrap();
        for other in ["jemalloc.memory.allocated", "glibc.memory.arena"] {
            assert!(snapshot.get(other).is_none(), "{other}");
        }
        [value("mimalloc.memory.committed"), value("mimalloc.memory.reserved"), value("rust.memory.used")]
    };
    let held = black_box(vec![1_u8; 32 << 20]);
    let [committed, reserved, used] = read();
    assert!(used >= 32 << 20);
    assert!(committed >= 32 << 20 && reserved >= 32 << 20, "{committed} {reserved}");
    drop(held);
}
