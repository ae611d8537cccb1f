//! The data that a reading returns: a [`Snapshot`] and its parts.

use std::sync::Arc;
use std::time::SystemTime;

use crate::metric::Metric;

/// The readings of one moment, in the order of the [`catalogue`](crate::catalogue).
///
/// A metric that cannot be read is left out. [`RuntimeMetrics::snapshot`](crate::RuntimeMetrics::snapshot) makes one:
///
/// ```
/// let metrics = opentelemetry_instrumentation_runtime::init_runtime_metrics(&opentelemetry::global::meter("example"));
/// let snapshot = metrics.snapshot();
/// if let Some(live) = snapshot.get("rust.memory.used").and_then(|reading| reading.value()?.as_u64()) {
///     println!("{live} bytes are allocated");
/// }
/// ```
///
/// With the feature `serde` it implements `Serialize`: a map of the time, in RFC 3339, and the metrics by name. Each
/// attribute makes one level of nested maps.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) time: SystemTime,
    pub(crate) readings: Vec<Reading>,
}

impl Snapshot {
    /// Returns the time at which the snapshot was taken.
    pub fn time(&self) -> SystemTime {
        self.time
    }

    /// Returns the readings in the order of the [`catalogue`](crate::catalogue).
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// Returns the reading of a metric by name, or `None` if the metric has no point.
    pub fn get(&self, name: &str) -> Option<&Reading> {
        self.readings.iter().find(|reading| reading.metric.name() == name)
    }
}

/// The points of one metric at the moment of a snapshot.
#[derive(Clone, Debug)]
pub struct Reading {
    pub(crate) metric: &'static Metric,
    pub(crate) points: Vec<Point>,
}

impl Reading {
    /// Returns the metric that was read.
    pub fn metric(&self) -> &'static Metric {
        self.metric
    }

    /// Returns the points, one for each set of attributes.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Returns the value of the only point, or `None` if there are several points.
    pub fn value(&self) -> Option<&Value> {
        match self.points.as_slice() {
            [point] => Some(&point.value),
            _ => None,
        }
    }
}

/// A value and the attributes that distinguish it from the metric's other values.
#[derive(Clone, Debug)]
pub struct Point {
    pub(crate) attributes: Attributes,
    pub(crate) value: Value,
    pub(crate) epoch: u64,
}

impl Point {
    /// Returns the attributes that distinguish this point from the metric's other points.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Returns the value, in the unit of the metric.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

/// The value of a point: a number or a distribution.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A count or an amount, such as bytes.
    U64(u64),
    /// A number of seconds.
    F64(f64),
    /// A distribution of seconds.
    Histogram(Histogram),
}

impl Value {
    /// Returns the number, or `None` for a distribution. Counts above 2^53 are rounded.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::U64(value) => Some(*value as f64),
            Value::F64(value) => Some(*value),
            Value::Histogram(_) => None,
        }
    }

    /// Returns the count or amount, or `None` for seconds and distributions.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::U64(value) => Some(*value),
            _ => None,
        }
    }
}

impl Value {
    /// Returns zero of the same kind.
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

    /// Raises the value to at least another value of the same kind.
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

/// A distribution of durations in seconds, cumulative since the measured object started.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Histogram {
    /// The inclusive upper bounds of all buckets but the last, in rising order. The last bucket has no bound.
    pub bounds: Arc<[f64]>,
    /// The number of samples in each bucket. There is one more bucket than there are bounds.
    pub counts: Vec<u64>,
    /// The sum of all samples, in seconds.
    pub sum: f64,
}

impl Histogram {
    /// Returns a histogram with the same buckets and no samples.
    pub(crate) fn empty(&self) -> Histogram {
        Histogram { bounds: Arc::clone(&self.bounds), counts: vec![0; self.counts.len()], sum: 0.0 }
    }

    /// Adds the samples of a histogram with the same buckets.
    pub(crate) fn add(&mut self, other: &Histogram) {
        self.counts
            .iter_mut()
            .zip(&other.counts)
            .for_each(|(count, more)| *count = count.saturating_add(*more));
        self.sum += other.sum;
    }

    /// Returns the samples that an earlier histogram does not contain.
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
    /// A text that is compiled into the program.
    Static(&'static str),
    /// A text from run time, such as the name of a runtime.
    Shared(Arc<str>),
    /// A number, such as the index of a worker.
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

/// The attributes of a point, sorted by key.
///
/// Those that distinguish a metric's points lie inline, since most points have none and the others few. Those that all
/// series have in common are shared. Taking a snapshot allocates for neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    own: [Option<(&'static str, AttributeValue)>; Attributes::MAX_LEN],
    common: Option<CommonAttributes>,
}

/// The attributes that the builder was given for every series, sorted by key.
pub(crate) type CommonAttributes = Arc<[(&'static str, AttributeValue)]>;

impl Attributes {
    /// A runtime's name, a worker's index and the row's own.
    pub(crate) const MAX_LEN: usize = 3;
    pub(crate) const MAX_COMMON: usize = 16;

    /// Returns an iterator over keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &AttributeValue)> {
        let mut own = self.own().peekable();
        let common = self.common.iter().flat_map(|common| common.iter());
        let mut common = common.map(|(key, value)| (*key, value)).peekable();
        std::iter::from_fn(move || match (own.peek(), common.peek()) {
            (Some((own_key, _)), Some((common_key, _))) if own_key < common_key => own.next(),
            (_, Some(_)) => common.next(),
            (_, None) => own.next(),
        })
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&AttributeValue> {
        self.iter().find(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// Returns true if there are no attributes.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Iterates over those that distinguish this point from the others of its metric in this process.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&'static str, &AttributeValue)> {
        self.own.iter().flatten().map(|(key, value)| (*key, value))
    }

    pub(crate) fn has_common(&self) -> bool {
        self.common.is_some()
    }

    /// Adds the attributes that all series have.
    pub(crate) fn set_common(&mut self, common: &CommonAttributes) {
        self.common = Some(Arc::clone(common));
    }

    /// Returns these and one more.
    pub(crate) fn and(mut self, key: &'static str, value: impl Into<AttributeValue>) -> Self {
        self.insert(key, value.into());
        self
    }

    pub(crate) fn insert(&mut self, key: &'static str, value: AttributeValue) {
        let mut carried = Some((key, value));
        for entry in &mut self.own {
            let comes_first = match (&carried, &*entry) {
                (Some((new, _)), Some((old, _))) => new < old,
                (Some(_), None) => true,
                (None, _) => return,
            };
            if comes_first {
                std::mem::swap(entry, &mut carried);
            }
        }
        debug_assert!(carried.is_none(), "more attributes than a point has room for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_sorted_by_key() {
        let keys = |attributes: &Attributes| attributes.iter().map(|(key, _)| key).collect::<Vec<_>>();
        let forwards = Attributes::default().and("a", "1").and("b", 2).and("c", "3");
        let backwards = Attributes::default().and("c", "3").and("b", 2).and("a", "1");
        assert_eq!(keys(&forwards), ["a", "b", "c"]);
        assert_eq!(forwards, backwards);
        assert_eq!(forwards.get("b"), Some(&AttributeValue::Int(2)));
        assert_eq!(forwards.get("d"), None);
        assert!(Attributes::default().is_empty());
    }

    #[test]
    fn common_attributes_come_in_the_order_of_the_keys_too() {
        let common: CommonAttributes =
            [("b", AttributeValue::Static("2")), ("d", AttributeValue::Int(4))].into_iter().collect();
        let mut attributes = Attributes::default().and("a", "1").and("c", "3").and("e", "5");
        attributes.set_common(&common);
        let keys: String = attributes.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, "abcde");
        assert_eq!(attributes.own().count(), 3);
        assert_eq!(attributes.get("d"), Some(&AttributeValue::Int(4)));
        let mut alone = Attributes::default();
        alone.set_common(&common);
        assert!(!alone.is_empty() && alone.own().next().is_none());
    }
}
