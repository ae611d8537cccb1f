//! What a metric is: a row of a source's table. And what reading the rows gives: a [`Snapshot`]. Pure data.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::SystemTime;

/// The instrument a metric is reported through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A monotonic sum.
    Counter,
    /// A sum that may fall.
    UpDownCounter,
    /// A value whose sum over processes means nothing.
    Gauge,
    /// A distribution.
    Histogram,
}

/// When a metric is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Whenever its source exists.
    Default,
    /// When asked for.
    OptIn,
    /// When compiled with `--cfg tokio_unstable`.
    Unstable,
}

/// The description of a metric. There is one for each row of the catalogue, the same in every build.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    description: &'static str,
    origin: &'static str,
    advice: &'static str,
    level: Level,
    attribute: Option<&'static str>,
    attribute_on_request: Option<&'static str>,
}

impl Metric {
    /// The name under which the metric is exported.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The kind of its instrument.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its unit, in UCUM notation.
    pub const fn unit(&self) -> &'static str {
        self.unit
    }

    /// What is counted, in one sentence.
    pub const fn description(&self) -> &'static str {
        self.description
    }

    /// Where the number comes from.
    pub const fn origin(&self) -> &'static str {
        self.origin
    }

    /// What it means when it moves, and what to do then.
    pub const fn advice(&self) -> &'static str {
        self.advice
    }

    /// When it is reported.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The attribute that tells the points of one reading apart, beside those that its whole source carries
    /// (the runtime's or the task's name).
    pub const fn attribute(&self) -> Option<&'static str> {
        self.attribute
    }

    /// The attribute by which its points are told apart further when that is asked for.
    pub const fn attribute_on_request(&self) -> Option<&'static str> {
        self.attribute_on_request
    }
}

/// A row: a metric and how to read it from its source's sample.
pub(crate) struct Row<S> {
    pub(crate) metric: Metric,
    read: Read<S>,
}

enum Read<S> {
    U64(fn(&S, &mut Points<'_, u64>)),
    F64(fn(&S, &mut Points<'_, f64>)),
    Histogram(fn(&S, &mut Points<'_, Histogram>)),
}

/// A monotonic count of things.
pub(crate) const fn counter<S>(
    name: &'static str,
    unit: &'static str,
    read: fn(&S, &mut Points<'_, u64>),
) -> Row<S> {
    Row::new(name, Kind::Counter, unit, Read::U64(read))
}

/// A monotonic sum of time.
pub(crate) const fn counter_of_seconds<S>(name: &'static str, read: fn(&S, &mut Points<'_, f64>)) -> Row<S> {
    Row::new(name, Kind::Counter, "s", Read::F64(read))
}

/// An amount that can be added up over processes.
pub(crate) const fn up_down_counter<S>(
    name: &'static str,
    unit: &'static str,
    read: fn(&S, &mut Points<'_, u64>),
) -> Row<S> {
    Row::new(name, Kind::UpDownCounter, unit, Read::U64(read))
}

/// An amount that cannot be added up.
pub(crate) const fn gauge<S>(
    name: &'static str,
    unit: &'static str,
    read: fn(&S, &mut Points<'_, u64>),
) -> Row<S> {
    Row::new(name, Kind::Gauge, unit, Read::U64(read))
}

/// A point or stretch of time.
pub(crate) const fn gauge_of_seconds<S>(name: &'static str, read: fn(&S, &mut Points<'_, f64>)) -> Row<S> {
    Row::new(name, Kind::Gauge, "s", Read::F64(read))
}

/// A distribution of durations.
pub(crate) const fn histogram<S>(name: &'static str, read: fn(&S, &mut Points<'_, Histogram>)) -> Row<S> {
    Row::new(name, Kind::Histogram, "s", Read::Histogram(read))
}

impl<S> Row<S> {
    const fn new(name: &'static str, kind: Kind, unit: &'static str, read: Read<S>) -> Self {
        let metric = Metric {
            name,
            kind,
            unit,
            description: "",
            origin: "",
            advice: "",
            level: Level::Default,
            attribute: None,
            attribute_on_request: None,
        };
        Row { metric, read }
    }

    /// The sentence that is exported with it.
    pub(crate) const fn says(mut self, description: &'static str) -> Self {
        self.metric.description = description;
        self
    }

    /// Where the number comes from.
    pub(crate) const fn from(mut self, origin: &'static str) -> Self {
        self.metric.origin = origin;
        self
    }

    /// What it means when it moves, and what to do.
    pub(crate) const fn moves(mut self, advice: &'static str) -> Self {
        self.metric.advice = advice;
        self
    }

    /// The attribute that [`Points::with`] sets.
    pub(crate) const fn by(mut self, attribute: &'static str) -> Self {
        self.metric.attribute = Some(attribute);
        self
    }

    /// The attribute that its points have beside, when the builder was told so.
    pub(crate) const fn on_request_by(mut self, attribute: &'static str) -> Self {
        self.metric.attribute_on_request = Some(attribute);
        self
    }

    /// Reported when asked for only.
    pub(crate) const fn opt_in(mut self) -> Self {
        self.metric.level = Level::OptIn;
        self
    }

    /// Readable under `--cfg tokio_unstable` only.
    pub(crate) const fn unstable(mut self) -> Self {
        self.metric.level = Level::Unstable;
        self
    }

    /// Appends what the sample says of this metric to `out`.
    pub(crate) fn read(&self, sample: &S, scope: &Scope, out: &mut Vec<Point>) {
        let attribute = self.metric.attribute;
        match self.read {
            Read::U64(read) => read(sample, &mut Points { attribute, scope, out, value: PhantomData }),
            Read::F64(read) => read(sample, &mut Points { attribute, scope, out, value: PhantomData }),
            Read::Histogram(read) => read(sample, &mut Points { attribute, scope, out, value: PhantomData }),
        }
    }
}

/// What all points of one sample have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// The attributes of every point.
    pub(crate) attributes: Attributes,
    /// Which incarnation of the thing is read. When another one takes over its attributes (a runtime that is
    /// started anew under its old name), its counters go on from where the last one's ended.
    pub(crate) epoch: u64,
}

/// Takes what a row reads.
pub(crate) struct Points<'a, T> {
    attribute: Option<&'static str>,
    scope: &'a Scope,
    out: &'a mut Vec<Point>,
    value: PhantomData<fn(T)>,
}

impl<T: Into<Value>> Points<'_, T> {
    /// The one point of this metric. `None`, what cannot be read, is no point.
    pub(crate) fn value(&mut self, value: impl Into<Option<T>>) {
        self.push(self.scope.attributes.clone(), value.into());
    }

    /// The point for one value of the row's own attribute.
    pub(crate) fn with(&mut self, attribute: impl Into<AttributeValue>, value: impl Into<Option<T>>) {
        let mut attributes = self.scope.attributes.clone();
        if let Some(key) = self.attribute {
            attributes.insert(key, attribute.into());
        }
        self.push(attributes, value.into());
    }

    /// A point for one part of the sample's whole, such as a worker.
    pub(crate) fn at(
        &mut self,
        key: &'static str,
        part: impl Into<AttributeValue>,
        value: impl Into<Option<T>>,
    ) {
        self.push(self.scope.attributes.clone().and(key, part), value.into());
    }

    fn push(&mut self, attributes: Attributes, value: Option<T>) {
        if let Some(value) = value {
            self.out.push(Point { attributes, value: value.into(), epoch: self.scope.epoch });
        }
    }
}

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
        self.readings.iter().find(|reading| reading.metric.name == name)
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

    fn insert(&mut self, key: &'static str, value: AttributeValue) {
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

    #[test]
    fn a_row_reads_points_with_its_scope_s_attributes_and_its_own() {
        static ROW: Row<[u64; 2]> = counter("x", "{thing}", |sample: &[u64; 2], to| {
            to.with("first", sample[0]);
            to.with("second", None);
            to.with("third", sample[1]);
        })
        .by("which");
        let scope = Scope { attributes: Attributes::default().and("name", "n"), epoch: 7 };
        let mut points = Vec::new();
        ROW.read(&[1, 2], &scope, &mut points);
        let seen: Vec<_> =
            points.iter().map(|p| (p.attributes.get("which"), p.value.as_u64(), p.epoch)).collect();
        assert_eq!(
            seen,
            [
                (Some(&AttributeValue::Static("first")), Some(1), 7),
                (Some(&AttributeValue::Static("third")), Some(2), 7)
            ]
        );
        assert!(points.iter().all(|p| p.attributes.get("name").is_some()));
    }
}
