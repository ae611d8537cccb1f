//! Serializes snapshots: metric names are keys, and attributes make nested objects.
//!
//! ```json
//! {"time": "2026-11-23T20:36:35.123Z", "rust.memory.used": 1234, "process.cpu.time": {"system": 0.1, "user": 2.5}}
//! ```

use std::cmp::Ordering;
use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::metric::Metric;
use crate::snapshot::{AttributeValue, Attributes, Histogram, Point, Snapshot, Value};
use crate::source::tokio;

/// The name of a runtime that reports none because it is the only one. It keeps this name when a second one starts.
const ONLY_RUNTIME: &str = "1";

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_snapshot(&mut map, self)?;
        map.end()
    }
}

/// Writes the time and the readings into a map that may hold more.
pub(crate) fn write_snapshot<M: SerializeMap>(map: &mut M, snapshot: &Snapshot) -> Result<(), M::Error> {
    map.serialize_entry("time", &format_args!("{}", humantime::format_rfc3339_millis(snapshot.time())))?;
    for reading in snapshot.readings() {
        let points = reading.points().iter().map(|point| (point, point.value())).collect();
        write_points(map, format_args!("{}", reading.metric().name()), reading.metric(), points)?;
    }
    Ok(())
}

/// Writes values by the attributes of their points: an object for each attribute, in the order of the attributes'
/// names, whose keys are the attribute's values.
pub(crate) fn write_points<M: SerializeMap, V: Serialize>(
    map: &mut M,
    key: fmt::Arguments<'_>,
    metric: &Metric,
    points: Vec<(&Point, V)>,
) -> Result<(), M::Error> {
    let mut points: Vec<_> =
        points.into_iter().map(|(point, value)| (levels(metric, point), value)).collect();
    points.sort_by(|(a, _), (b, _)| order(a, b));
    map.serialize_entry(&key, &Nested { points: &points, depth: 0 })
}

/// The attributes by which a point is nested: its own, and always the runtime's name, so that an object has the same
/// shape for one runtime and for several.
fn levels(metric: &Metric, point: &Point) -> Attributes {
    let mut attributes = point.attributes().clone();
    if tokio::TABLE.rows.iter().any(|row| std::ptr::eq(&row.metric, metric)) {
        for key in tokio::TABLE.attributes {
            if attributes.get(key).is_none() {
                attributes.insert(key, ONLY_RUNTIME.into());
            }
        }
    }
    attributes
}

/// Values by attributes, of which the first `depth` are keys of the objects around.
struct Nested<'a, V> {
    points: &'a [(Attributes, V)],
    depth: usize,
}

impl<'a, V> Nested<'a, V> {
    fn key(&self, attributes: &'a Attributes) -> Option<&'a AttributeValue> {
        attributes.own().nth(self.depth).map(|(_, value)| value)
    }
}

impl<V: Serialize> Serialize for Nested<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let [(attributes, value)] = self.points
            && self.key(attributes).is_none()
        {
            return value.serialize(serializer);
        }
        let mut map = serializer.serialize_map(None)?;
        for points in self.points.chunk_by(|(a, _), (b, _)| order_of_values(self.key(a), self.key(b)).is_eq())
        {
            let key = points.first().and_then(|(attributes, _)| self.key(attributes));
            match (key, points) {
                (Some(key), points) => {
                    map.serialize_entry(&format_args!("{key}"), &Nested { points, depth: self.depth + 1 })?;
                }
                // The whole beside its parts.
                (None, [(_, value), ..]) => map.serialize_entry("", value)?,
                (None, []) => {}
            }
        }
        map.end()
    }
}

fn order(a: &Attributes, b: &Attributes) -> Ordering {
    let (mut a, mut b) = (a.own(), b.own());
    loop {
        let (a, b) = (a.next().map(|(_, value)| value), b.next().map(|(_, value)| value));
        let order = order_of_values(a, b);
        if order.is_ne() || a.is_none() {
            return order;
        }
    }
}

fn order_of_values(a: Option<&AttributeValue>, b: Option<&AttributeValue>) -> Ordering {
    fn parts(value: &AttributeValue) -> (i64, &str) {
        match value {
            AttributeValue::Static(text) => (0, text),
            AttributeValue::Shared(text) => (0, text),
            AttributeValue::Int(number) => (*number, ""),
        }
    }
    a.map(parts).cmp(&b.map(parts))
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::U64(value) => value.serialize(serializer),
            Value::F64(value) => value.serialize(serializer),
            Value::Histogram(histogram) => histogram.serialize(serializer),
        }
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("count", &self.counts.iter().sum::<u64>())?;
        map.serialize_entry("sum", &self.sum)?;
        map.serialize_entry("bounds", &*self.bounds)?;
        map.serialize_entry("counts", &self.counts)?;
        map.end()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::metric::Metric;
    use crate::snapshot::{Attributes, Reading};
    use crate::source::row::{Points, up_down_counter};

    /// The metric of that name, or an invented one.
    fn metric(name: &'static str) -> &'static Metric {
        let all = crate::catalogue();
        let known = all.iter().flat_map(|group| &group.metrics).find(|metric| metric.name() == name);
        known.copied().unwrap_or_else(|| {
            &Box::leak(Box::new(up_down_counter::<()>(name, "", |_: &(), _: &mut Points<'_, u64>| {}))).metric
        })
    }

    /// A snapshot of these points, `time` seconds after the epoch.
    pub(crate) fn snapshot(time: u64, points: Vec<(&'static str, Attributes, Value)>) -> Snapshot {
        let mut readings: Vec<Reading> = Vec::new();
        for (name, attributes, value) in points {
            let point = Point { attributes, value, epoch: 0 };
            match readings.iter_mut().find(|reading| reading.metric.name() == name) {
                Some(reading) => reading.points.push(point),
                None => readings.push(Reading { metric: metric(name), points: vec![point] }),
            }
        }
        Snapshot { time: SystemTime::UNIX_EPOCH + Duration::from_secs(time), readings }
    }

    pub(crate) fn none() -> Attributes {
        Attributes::default()
    }

    #[test]
    fn attributes_make_nested_objects() {
        let runtime = |name: &str| none().and("tokio.runtime.name", Arc::<str>::from(name));
        let snapshot = snapshot(
            0,
            vec![
                ("process.uptime", none(), Value::F64(1.5)),
                ("process.cpu.time", none().and("cpu.mode", "user"), Value::F64(2.0)),
                ("process.cpu.time", none().and("cpu.mode", "system"), Value::F64(1.0)),
                ("tokio.worker.count", runtime("b").and("tokio.worker.state", "parked"), Value::U64(3)),
                ("tokio.worker.count", runtime("a"), Value::U64(1)),
                ("tokio.worker.count", runtime("b").and("tokio.worker.state", "active"), Value::U64(4)),
                ("tokio.worker.parks", none().and("tokio.worker.index", 10), Value::U64(6)),
                ("tokio.worker.parks", none().and("tokio.worker.index", 9), Value::U64(5)),
            ],
        );
        let expected = concat!(
            r#"{"time":"1970-01-01T00:00:00.000Z","process.uptime":1.5,"process.cpu.time":{"system":1.0,"user":2.0},"#,
            r#""tokio.worker.count":{"a":1,"b":{"active":4,"parked":3}},"tokio.worker.parks":{"1":{"9":5,"10":6}}}"#
        );
        assert_eq!(serde_json::to_string(&snapshot).unwrap(), expected);
    }

    #[test]
    fn a_total_beside_its_parts_is_kept() {
        let part = none().and("rust.memory.size_class", Arc::<str>::from("\"\n"));
        let points = vec![
            ("rust.memory.allocations", part, Value::U64(1)),
            ("rust.memory.allocations", none(), Value::U64(2)),
        ];
        let text = serde_json::to_string(&snapshot(1, points)).unwrap();
        assert_eq!(text, r#"{"time":"1970-01-01T00:00:01.000Z","rust.memory.allocations":{"":2,"\"\n":1}}"#);
    }

    #[test]
    fn the_shape_does_not_depend_on_the_number_of_runtimes() {
        let runtime = |name: &str| none().and("tokio.runtime.name", Arc::<str>::from(name));
        let json = |points| serde_json::to_value(snapshot(1, points)).unwrap()["tokio.task.count"].take();
        let count = |attributes, value| ("tokio.task.count", attributes, Value::U64(value));
        assert_eq!(json(vec![count(none(), 5)]), serde_json::json!({"1": 5}));
        assert_eq!(
            json(vec![count(runtime("1"), 5), count(runtime("io"), 6)]),
            serde_json::json!({"1": 5, "io": 6})
        );
    }

    #[test]
    fn a_histogram_has_its_buckets() {
        let histogram = Histogram { bounds: Arc::new([0.5, 1.0]), counts: vec![1, 0, 2], sum: 4.5 };
        let text = serde_json::to_string(&Value::Histogram(histogram)).unwrap();
        assert_eq!(text, r#"{"count":3,"sum":4.5,"bounds":[0.5,1.0],"counts":[1,0,2]}"#);
    }
}
