//! Allocations by size.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::hint::black_box;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{CountingAllocator, Point, RuntimeMetrics};
use opentelemetry_sdk::metrics::SdkMeterProvider;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

#[test]
fn the_classes_sum_up_to_the_allocations() {
    let provider = SdkMeterProvider::default();
    let metrics = RuntimeMetrics::builder().size_classes(true).build(&provider.meter("test"));
    let classes = || -> BTreeMap<String, u64> {
        let snapshot = metrics.snapshot();
        let reading = snapshot.get("rust.memory.allocations").unwrap();
        let point = |point: &Point| {
            let class = point.attributes().get("rust.memory.size_class").unwrap().to_string();
            (class, point.value().as_u64().unwrap())
        };
        let classes: BTreeMap<_, _> = reading.points().iter().map(point).collect();
        let value = |name| snapshot.get(name).unwrap().value().unwrap().as_u64().unwrap();
        assert_eq!(
            classes.values().sum::<u64>(),
            value("rust.memory.allocation.count") + value("rust.memory.deallocations")
        );
        classes
    };
    assert_eq!(classes().len(), 11);

    let many = 1_000;
    let expected = [
        ("16", [1, 15, 16]),
        ("64", [17, 63, 64]),
        ("256", [65, 255, 256]),
        ("1024", [257, 1023, 1024]),
        ("4096", [1025, 4095, 4096]),
        ("16384", [4097, 16_383, 16_384]),
        ("65536", [16_385, 65_535, 65_536]),
        ("262144", [65_537, 262_143, 262_144]),
        ("1048576", [262_145, 1_048_575, 1_048_576]),
        ("4194304", [1_048_577, 4_194_303, 4_194_304]),
        ("+Inf", [4_194_305, 5_000_000, 1 << 30]),
    ];
    for (class, sizes) in expected {
        for size in sizes {
            let before = classes();
            for _ in 0..many {
                let layout = Layout::from_size_align(size, 1).unwrap();
                unsafe { dealloc(black_box(alloc(layout)), layout) };
            }
            let after = classes();
            // What else allocates in this process meanwhile is far less.
            for (name, count) in &after {
                let rise = count - before[name];
                assert_eq!(rise >= many, name == class, "{size} bytes: {rise} more in {name}");
            }
        }
    }
}
