//! What reading the rows gives: a [`Snapshot`]. Pure data.

use std::sync::Arc;
use std::time::SystemTime;

use crate::metric::Metric;

/// A moment's readings, in the catalogue's order. What could not be read is not in it.
///
/// With the feature `serde` it can be serialised: a map of the time, in RFC 3339, and of the metrics by name, in which
/// attributes make nested maps, one level for each.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) time: SystemTime,
    pub(crate) readings: Vec<Reading>,
}

impl Snapshot {
    /// When it was taken.
    pub fn time(&self) -> SystemTime {
        self.time
    }

    /// Its readings.
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// The reading of a metric, if it has one.
    pub fn get(&self, name: &str) -> Option<&Reading> {
        self.readings.iter().find(|reading| reading.metric.name() == name)
    }
}

/// A metric's points at the moment of a snapshot.
#[derive(Clone, Debug)]
pub struct Reading {
    pub(crate) metric: &'static Metric,
    pub(crate) points: Vec<Point>,
}

impl Reading {
    /// Which metric.
    pub fn metric(&self) -> &'static Metric {
        self.metric
    }

    /// One point for each set of attributes.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The value of the only point, if there is exactly one.
    pub fn value(&self) -> Option<&Value> {
        match self.points.as_slice() {
            [point] => Some(&point.value),
            _ => None,
        }
    }
}

/// A value and what it is the value of.
#[derive(Clone, Debug)]
pub struct Point {
    pub(crate) attributes: Attributes,
    pub(crate) value: Value,
    pub(crate) epoch: u64,
}

impl Point {
    /// What tells this point from the metric's others.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

/// A number, or a distribution of them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A count or an amount.
    U64(u64),
    /// Seconds.
    F64(f64),
    /// A distribution.
    Histogram(Histogram),
}

impl Value {
    /// The number, if it is one: counts beyond 2^53 are rounded.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::U64(value) => Some(*value as f64),
            Value::F64(value) => Some(*value),
            Value::Histogram(_) => None,
        }
    }

    /// The count or amount, if it is one.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::U64(value) => Some(*value),
            _ => None,
        }
    }
}

impl Value {
    /// Nothing, of the same kind.
    pub(crate) fn zero(&self) -> Value {
        match self {
            Value::U64(_) => Value::U64(0),
            Value::F64(_) => Value::F64(0.0),
            Value::Histogram(histogram) => Value::Histogram(histogram.empty()),
        }
    }

    /// Adds another value of the same kind.
    pub(crate) fn add(&mut self, other: &Value) {
        self.merge(other, u64::saturating_add, |a, b| a + b);
    }

    /// Makes it no less than another value of the same kind.
    pub(crate) fn raise(&mut self, other: &Value) {
        self.merge(other, u64::max, f64::max);
    }

    fn merge(&mut self, other: &Value, whole: impl Fn(u64, u64) -> u64, real: impl Fn(f64, f64) -> f64) {
        match (self, other) {
            (Value::U64(value), Value::U64(other)) => *value = whole(*value, *other),
            (Value::F64(value), Value::F64(other)) => *value = real(*value, *other),
            (Value::Histogram(value), Value::Histogram(other)) if value.bounds == other.bounds => {
                for (count, other) in value.counts.iter_mut().zip(&other.counts) {
                    *count = whole(*count, *other);
                }
                value.sum = real(value.sum, other.sum);
            }
            _ => {}
        }
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::U64(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::F64(value)
    }
}

impl From<Histogram> for Value {
    fn from(value: Histogram) -> Self {
        Value::Histogram(value)
    }
}

/// A distribution of durations in seconds since the start of what is measured.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Histogram {
    /// The upper bounds of the buckets but the last, which has none. Rising.
    pub bounds: Arc<[f64]>,
    /// How many samples fell into each bucket: one more than `bounds`.
    pub counts: Vec<u64>,
    /// Their sum.
    pub sum: f64,
}

impl Histogram {
    /// With the same buckets and nothing in them.
    pub(crate) fn empty(&self) -> Histogram {
        Histogram { bounds: Arc::clone(&self.bounds), counts: vec![0; self.counts.len()], sum: 0.0 }
    }

    /// Adds one with the same buckets.
    pub(crate) fn add(&mut self, other: &Histogram) {
        self.counts
            .iter_mut()
            .zip(&other.counts)
            .for_each(|(count, more)| *count = count.saturating_add(*more));
        self.sum += other.sum;
    }

    /// What has come on top of an earlier one.
    pub(crate) fn less(mut self, earlier: &Histogram) -> Histogram {
        self.counts
            .iter_mut()
            .zip(&earlier.counts)
            .for_each(|(count, less)| *count = count.saturating_sub(*less));
        self.sum -= earlier.sum;
        self
    }
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttributeValue {
    /// A text known when the crate was compiled.
    Static(&'static str),
    /// A text chosen at run time, such as a runtime's name.
    Shared(Arc<str>),
    /// A number, such as a worker's index.
    Int(i64),
}

impl std::fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AttributeValue::Static(text) => f.write_str(text),
            AttributeValue::Shared(text) => f.write_str(text),
            AttributeValue::Int(number) => number.fmt(f),
        }
    }
}

impl From<&'static str> for AttributeValue {
    fn from(text: &'static str) -> Self {
        AttributeValue::Static(text)
    }
}

impl From<Arc<str>> for AttributeValue {
    fn from(text: Arc<str>) -> Self {
        AttributeValue::Shared(text)
    }
}

impl From<i64> for AttributeValue {
    fn from(number: i64) -> Self {
        AttributeValue::Int(number)
    }
}

/// The attributes of a point, sorted by key. Inline, because most points have none and the others few: taking a
/// snapshot allocates nothing for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes([Option<(&'static str, AttributeValue)>; Attributes::MOST]);

impl Attributes {
    /// A runtime's name, a worker's index and the row's own.
    pub(crate) const MOST: usize = 3;

    /// Key and value of each, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &AttributeValue)> {
        self.0.iter().flatten().map(|(key, value)| (*key, value))
    }

    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&AttributeValue> {
        self.iter().find(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// These and one more.
    pub(crate) fn and(mut self, key: &'static str, value: impl Into<AttributeValue>) -> Self {
        self.insert(key, value.into());
        self
    }

    pub(crate) fn insert(&mut self, key: &'static str, value: AttributeValue) {
        let mut carried = Some((key, value));
        for place in &mut self.0 {
            let comes_first = match (&carried, &*place) {
                (Some((new, _)), Some((old, _))) => new < old,
                (Some(_), None) => true,
                (None, _) => return,
            };
            if comes_first {
                std::mem::swap(place, &mut carried);
            }
        }
        debug_assert!(carried.is_none(), "more attributes than a point has room for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_sorted_whatever_the_order_they_come_in() {
        let keys = |attributes: &Attributes| attributes.iter().map(|(key, _)| key).collect::<Vec<_>>();
        let forwards = Attributes::default().and("a", "1").and("b", 2).and("c", "3");
        let backwards = Attributes::default().and("c", "3").and("b", 2).and("a", "1");
        assert_eq!(keys(&forwards), ["a", "b", "c"]);
        assert_eq!(forwards, backwards);
        assert_eq!(forwards.get("b"), Some(&AttributeValue::Int(2)));
        assert_eq!(forwards.get("d"), None);
        assert!(Attributes::default().is_empty());
    }
}
