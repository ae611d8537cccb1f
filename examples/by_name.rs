//! Reads a metric by the name of its tasks. The examples that compare two moments share it.

use std::collections::BTreeMap;

use opentelemetry_instrumentation_runtime::Snapshot;

/// Returns a metric by task name, as a backend receives it.
pub(crate) fn by_name(snapshot: &Snapshot, metric: &str) -> BTreeMap<String, u64> {
    let points = snapshot.get(metric).map(|reading| reading.points()).unwrap_or_default();
    let each = points.iter().filter_map(|point| {
        Some((point.attributes().get("rust.task.name")?.to_string(), point.value().as_u64()?))
    });
    each.collect()
}
