//! A snapshot under the names that Go's `runtime.MemStats` made known.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::snapshot::{Snapshot, Value};

/// What a Go program's usual monitor prints. What cannot be read here is left out.
pub(crate) struct Line<'a>(pub(crate) &'a Snapshot);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let snapshot = self.0;
        let mut map = serializer.serialize_map(None)?;
        put(&mut map, "Alloc", total(snapshot, "rust.memory.used"))?;
        put(&mut map, "TotalAlloc", total(snapshot, "rust.memory.allocated"))?;
        put(&mut map, "Sys", sys(snapshot))?;
        put(&mut map, "Mallocs", total(snapshot, "rust.memory.allocations"))?;
        put(&mut map, "Frees", total(snapshot, "rust.memory.deallocations"))?;
        put(&mut map, "LiveObjects", total(snapshot, "rust.memory.allocation.count"))?;
        put(&mut map, "PauseTotalNs", pause_total_ns(snapshot))?;
        put(&mut map, "NumGC", total(snapshot, "tokio.worker.stalls"))?;
        put(&mut map, "NumGoroutine", total(snapshot, "tokio.task.count"))?;
        map.end()
    }
}

pub(crate) fn put<M: SerializeMap>(
    map: &mut M,
    key: &'static str,
    value: Option<u64>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(key, &value))
}

/// A metric's value over all its points.
pub(crate) fn total(snapshot: &Snapshot, name: &str) -> Option<u64> {
    match sum(snapshot, name)? {
        Value::U64(value) => Some(value),
        _ => None,
    }
}

pub(crate) fn pause_total_ns(snapshot: &Snapshot) -> Option<u64> {
    sum(snapshot, "tokio.worker.stall.time")?.as_f64().map(|seconds| (seconds * 1e9) as u64)
}

/// Memory taken from the operating system: what the allocator says of itself, else what the process occupies.
pub(crate) fn sys(snapshot: &Snapshot) -> Option<u64> {
    ["jemalloc.memory.mapped", "mimalloc.memory.committed", "process.memory.usage"]
        .iter()
        .find_map(|name| total(snapshot, name))
}

/// The point without attributes where there is one, else the sum of all.
pub(crate) fn sum(snapshot: &Snapshot, name: &str) -> Option<Value> {
    let points = snapshot.get(name)?.points();
    if let Some(whole) = points.iter().find(|point| point.attributes().own().next().is_none()) {
        return Some(whole.value().clone());
    }
    let (first, rest) = points.split_first()?;
    let mut sum = first.value().clone();
    rest.iter().for_each(|point| sum.add(point.value()));
    Some(sum)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::output::json::tests::{none, snapshot};

    #[test]
    fn each_key_is_what_the_documentation_says() {
        let runtime = |name: &str| none().and("tokio.runtime.name", Arc::<str>::from(name));
        let of = |name, value| (name, none(), Value::U64(value));
        let points = vec![
            of("rust.memory.used", 1),
            of("rust.memory.allocated", 2),
            of("jemalloc.memory.mapped", 3),
            of("process.memory.usage", 99),
            ("rust.memory.allocations", none().and("rust.memory.size_class", "16"), Value::U64(90)),
            of("rust.memory.allocations", 4),
            of("rust.memory.deallocations", 5),
            of("rust.memory.allocation.count", 6),
            ("tokio.worker.stall.time", runtime("a"), Value::F64(0.000_000_003)),
            ("tokio.worker.stall.time", runtime("b"), Value::F64(0.000_000_004)),
            ("tokio.worker.stalls", runtime("a"), Value::U64(8)),
            ("tokio.task.count", runtime("a"), Value::U64(4)),
            ("tokio.task.count", runtime("b"), Value::U64(5)),
        ];
        let line = serde_json::to_string(&Line(&snapshot(0, points))).unwrap();
        let expected = concat!(
            r#"{"Alloc":1,"TotalAlloc":2,"Sys":3,"Mallocs":4,"Frees":5,"LiveObjects":6,"#,
            r#""PauseTotalNs":7,"NumGC":8,"NumGoroutine":9}"#
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let snapshot = snapshot(0, vec![("process.memory.usage", none(), Value::U64(7))]);
        assert_eq!(serde_json::to_string(&Line(&snapshot)).unwrap(), r#"{"Sys":7}"#);
    }
}
