//! A row of a table: a metric, and how to read it from the sample of its source.

use std::marker::PhantomData;

use crate::metric::{Availability, Kind, Metric};
use crate::snapshot::{AttributeValue, Attributes, Histogram, Point, Value};

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
        Row { metric: Metric::new(name, kind, unit), read }
    }

    /// The sentence that is exported with it.
    pub(crate) const fn description(mut self, description: &'static str) -> Self {
        self.metric.description = description;
        self
    }

    /// Where the number comes from.
    pub(crate) const fn origin(mut self, origin: &'static str) -> Self {
        self.metric.origin = origin;
        self
    }

    /// What it means when it moves, and what to do.
    pub(crate) const fn advice(mut self, advice: &'static str) -> Self {
        self.metric.advice = advice;
        self
    }

    /// The attribute that [`Points::with`] sets.
    pub(crate) const fn attribute(mut self, attribute: &'static str) -> Self {
        self.metric.attribute = Some(attribute);
        self
    }

    /// The attribute that its points have beside, when the builder was told so.
    pub(crate) const fn opt_in_attribute(mut self, attribute: &'static str) -> Self {
        self.metric.opt_in_attribute = Some(attribute);
        self
    }

    /// Reported when asked for only.
    pub(crate) const fn opt_in(mut self) -> Self {
        self.metric.availability = Availability::OptIn;
        self
    }

    /// Readable under `--cfg tokio_unstable` only.
    pub(crate) const fn unstable(mut self) -> Self {
        self.metric.availability = Availability::Unstable;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_points_with_its_scope_s_attributes_and_its_own() {
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
