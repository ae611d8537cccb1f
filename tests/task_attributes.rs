//! Attributes that the builder puts on every series, and reading one metric by name.

use opentelemetry::KeyValue;
use opentelemetry_instrumentation_runtime::{
    AttributeValue, CountingAllocator, RuntimeMetrics, TaskExt, measure,
};
use support::tasks::build;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

#[test]
fn every_point_has_the_attributes_and_keys_of_the_library_are_ignored() {
    let builder = RuntimeMetrics::builder()
        .attribute(KeyValue::new("cell", "eu-1"))
        .attribute(KeyValue::new("rust.task.name", "mine"));
    let metrics = build(builder);
    let task = std::future::pending::<()>().with_task_name("attributes");
    for _ in 0..2 {
        let snapshot = metrics.snapshot();
        let points: Vec<_> = snapshot.readings().iter().flat_map(|reading| reading.points()).collect();
        assert!(points.len() > 10, "{}", points.len());
        for point in &points {
            let cell = point.attributes().get("cell").map(ToString::to_string);
            assert_eq!(cell.as_deref(), Some("eu-1"), "{point:?}");
        }
        let names: Vec<_> =
            points.iter().filter_map(|point| point.attributes().get("rust.task.name")).collect();
        assert!(!names.is_empty() && names.iter().all(|name| name.to_string() == "attributes"), "{names:?}");
    }
    drop(task);
}

#[test]
fn read_returns_one_metric_by_its_name_until_stop() {
    let metrics = build(RuntimeMetrics::builder().attribute(KeyValue::new("shard", 7)));
    let reading = metrics.read("rust.memory.allocations").expect("this is the global allocator");
    let [point] = reading.points() else { panic!("{reading:?}") };
    assert_eq!(point.attributes().get("shard"), Some(&AttributeValue::Int(7)));
    let before = point.value().as_u64();
    drop(std::hint::black_box(vec![0_u8; 100]));
    let after = metrics.read("rust.memory.allocations").and_then(|reading| reading.value()?.as_u64());
    assert!(after > before, "{after:?} > {before:?}");
    assert!(metrics.read("no.such.metric").is_none());
    let (_, whole) = measure(|| metrics.snapshot());
    let (_, one) = measure(|| metrics.read("rust.memory.used"));
    assert!(one.allocations < whole.allocations, "{one:?} {whole:?}");
    metrics.stop();
    assert!(metrics.read("rust.memory.used").is_none());
}
