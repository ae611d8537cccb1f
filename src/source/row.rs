//! A row of a table: a metric and its reading function.

use std::marker::PhantomData;

use crate::metric::{Availability, Kind, Metric};
use crate::snapshot::{AttributeValue, Attributes, Histogram, Point, Value};

/// A metric and the function that reads it from its source's sample.
pub(crate) struct Row<S> {
    pub(crate) metric: Metric,
    read: Read<S>,
}

enum Read<S> {
    U64(fn(&S, &mut Points<'_, u64>)),
    F64(fn(&S, &mut Points<'_, f64>)),
    Histogram(fn(&S, &mut Points<'_, Histogram>)),
}

/// Makes a row for a monotonic count of things.
pub(crate) const fn counter<S>(
    name: &'static str,
    unit: &'static str,
    read: fn(&S, &mut Points<'_, u64>),
) -> Row<S> {
    Row::new(name, Kind::Counter, unit, Read::U64(read))
}

/// Makes a row for a monotonic sum of seconds.
pub(crate) const fn counter_of_seconds<S>(name: &'static str, read: fn(&S, &mut Points<'_, f64>)) -> Row<S> {
    Row::new(name, Kind::Counter, "s", Read::F64(read))
}

/// Makes a row for an amount whose sum over processes has a meaning.
pub(crate) const fn up_down_counter<S>(
    name: &'static str,
    unit: &'static str,
    read: fn(&S, &mut Points<'_, u64>),
) -> Row<S> {
    Row::new(name, Kind::UpDownCounter, unit, Read::U64(read))
}

/// Makes a row for an amount whose sum over processes has no meaning.
pub(crate) const fn gauge<S>(
    name: &'static str,
    unit: &'static str,
    read: fn(&S, &mut Points<'_, u64>),
) -> Row<S> {
    Row::new(name, Kind::Gauge, unit, Read::U64(read))
}

/// Makes a row for a number of seconds that can fall.
pub(crate) const fn gauge_of_seconds<S>(name: &'static str, read: fn(&S, &mut Points<'_, f64>)) -> Row<S> {
    Row::new(name, Kind::Gauge, "s", Read::F64(read))
}

/// Makes a row for a distribution of durations in seconds.
pub(crate) const fn histogram<S>(name: &'static str, read: fn(&S, &mut Points<'_, Histogram>)) -> Row<S> {
    Row::new(name, Kind::Histogram, "s", Read::Histogram(read))
}

impl<S> Row<S> {
    const fn new(name: &'static str, kind: Kind, unit: &'static str, read: Read<S>) -> Self {
        Row { metric: Metric::new(name, kind, unit), read }
    }

    /// Sets the description that is exported with the metric.
    pub(crate) const fn description(mut self, description: &'static str) -> Self {
        self.metric.description = description;
        self
    }

    /// Sets the origin of the number.
    pub(crate) const fn origin(mut self, origin: &'static str) -> Self {
        self.metric.origin = origin;
        self
    }

    /// Sets the meaning of a change and the advice for it.
    pub(crate) const fn advice(mut self, advice: &'static str) -> Self {
        self.metric.advice = advice;
        self
    }

    /// Sets the attribute that [`Points::with`] adds to each point.
    pub(crate) const fn attribute(mut self, attribute: &'static str) -> Self {
        self.metric.attribute = Some(attribute);
        self
    }

    /// Sets the attribute that the points have if a setting of the builder asks for it.
    pub(crate) const fn opt_in_attribute(mut self, attribute: &'static str) -> Self {
        self.metric.opt_in_attribute = Some(attribute);
        self
    }

    /// Marks the metric as reported on request only.
    pub(crate) const fn opt_in(mut self) -> Self {
        self.metric.availability = Availability::OptIn;
        self
    }

    /// Marks the metric as readable under `--cfg tokio_unstable` only.
    pub(crate) const fn unstable(mut self) -> Self {
        self.metric.availability = Availability::Unstable;
        self
    }

    /// Appends the points of this metric to `out`.
    pub(crate) fn read(&self, sample: &S, scope: &Scope, out: &mut Vec<Point>) {
        let attribute = self.metric.attribute;
        match self.read {
            Read::U64(read) => read(sample, &mut Points { attribute, scope, out, value: PhantomData }),
            Read::F64(read) => read(sample, &mut Points { attribute, scope, out, value: PhantomData }),
            Read::Histogram(read) => read(sample, &mut Points { attribute, scope, out, value: PhantomData }),
        }
    }
}

/// The properties that all points of one sample share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// The attributes of each point.
    pub(crate) attributes: Attributes,
    /// The incarnation of the thing that is read. When another incarnation takes over its attributes, such as a
    /// runtime that starts again under its old name, the counters continue from their last values.
    pub(crate) epoch: u64,
}

/// Receives the values that a row reads.
pub(crate) struct Points<'a, T> {
    attribute: Option<&'static str>,
    scope: &'a Scope,
    out: &'a mut Vec<Point>,
    value: PhantomData<fn(T)>,
}

impl<T: Into<Value>> Points<'_, T> {
    /// Adds the only point of this metric. `None`, a value that cannot be read, adds no point.
    pub(crate) fn value(&mut self, value: impl Into<Option<T>>) {
        self.push(self.scope.attributes.clone(), value.into());
    }

    /// Adds the point for one value of the row's own attribute.
    pub(crate) fn with(&mut self, attribute: impl Into<AttributeValue>, value: impl Into<Option<T>>) {
        let mut attributes = self.scope.attributes.clone();
        if let Some(key) = self.attribute {
            attributes.insert(key, attribute.into());
        }
        self.push(attributes, value.into());
    }

    /// Adds the point for one part of the sample, such as a worker.
    pub(crate) fn at(
        &mut self,
        key: &'static str,
        part: impl Into<AttributeValue>,
        value: impl Into<Option<T>>,
    ) {
        self.push(self.scope.attributes.clone().and(key, part), value.into());
    }

    /// Adds the point for one value of the row's own attribute and one part of the whole.
    pub(crate) fn with_at(
        &mut self,
        attribute: impl Into<AttributeValue>,
        key: &'static str,
        part: impl Into<AttributeValue>,
        value: impl Into<Option<T>>,
    ) {
        let mut attributes = self.scope.attributes.clone().and(key, part);
        if let Some(key) = self.attribute {
            attributes.insert(key, attribute.into());
        }
        self.push(attributes, value.into());
    }

    fn push(&mut self, attributes: Attributes, value: Option<T>) {
        if let Some(value) = value {
            self.out.push(Point { attributes, value: value.into(), epoch: self.scope.epoch });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_adds_its_own_attribute_to_those_of_the_scope() {
        static ROW: Row<[u64; 2]> = counter("x", "{thing}", |sample: &[u64; 2], to| {
            to.with("first", sample[0]);
            to.with("second", None);
            to.with("third", sample[1]);
        })
        .attribute("which");
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
