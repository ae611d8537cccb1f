//! The value of a metric over all its points.

use crate::snapshot::{Snapshot, Value};

/// Returns the value of the point without attributes, or else the sum of all points.
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

/// Returns the sum of a metric that counts.
pub(crate) fn total(snapshot: &Snapshot, name: &str) -> Option<u64> {
    sum(snapshot, name)?.as_u64()
}

/// Returns the sum of a metric in seconds.
pub(crate) fn nanoseconds(snapshot: &Snapshot, name: &str) -> Option<u64> {
    sum(snapshot, name)?.as_f64().map(|seconds| (seconds * 1e9) as u64)
}
