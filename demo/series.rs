//! Every series over time, from exports or from snapshots.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::{Kind as MetricKind, Snapshot, Value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use support::receiver::{Export, points};

use crate::readable::readable;
use crate::trend::Trend;

pub(crate) const TASK: &str = "rust.task.name";

/// All series, by metric and attributes.
#[derive(Default)]
pub(crate) struct History {
    series: BTreeMap<(String, Attributes), Series>,
    samples: usize,
}

pub(crate) type Attributes = BTreeMap<String, String>;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    Amount,
    Gauge,
    Histogram,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    value: f64,
    /// The sum of a histogram, whose value is its count.
    sum: f64,
}

pub(crate) struct Series {
    unit: String,
    kind: Kind,
    first: Sample,
    before: Sample,
    last: Sample,
    /// The number of the latest sample of all series that has this one.
    sample: usize,
    trend: Trend,
}

impl History {
    /// Adds an export that was received.
    pub(crate) fn add_export(&mut self, export: &Export) {
        self.samples += 1;
        for metric in export.metrics() {
            for point in points(metric) {
                let sample = Sample { at: export.at, value: point.value, sum: point.sum.unwrap_or_default() };
                self.add(&metric.name, point.attributes, &metric.unit, kind(metric), sample);
            }
        }
    }

    /// Adds a snapshot that was taken.
    pub(crate) fn add_snapshot(&mut self, snapshot: &Snapshot, at: Instant) {
        self.samples += 1;
        for reading in snapshot.readings() {
            let metric = reading.metric();
            let kind = match metric.kind() {
                MetricKind::Counter => Kind::Counter,
                MetricKind::UpDownCounter => Kind::Amount,
                MetricKind::Histogram => Kind::Histogram,
                _ => Kind::Gauge,
            };
            for point in reading.points() {
                let (value, sum) = match point.value() {
                    Value::Histogram(histogram) => {
                        (histogram.counts.iter().sum::<u64>() as f64, histogram.sum)
                    }
                    number => (number.as_f64().unwrap_or_default(), 0.0),
                };
                let attributes = point.attributes().iter();
                let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_string())).collect();
                self.add(metric.name(), attributes, metric.unit(), kind, Sample { at, value, sum });
            }
        }
    }

    fn add(&mut self, name: &str, attributes: Attributes, unit: &str, kind: Kind, last: Sample) {
        let series = self.series.entry((name.to_owned(), attributes)).or_insert_with(|| Series {
            unit: unit.to_owned(),
            kind,
            first: last,
            before: last,
            last,
            sample: 0,
            trend: Trend::new(),
        });
        // The export at shutdown can follow too soon for a rate.
        if last.at - series.last.at > Duration::from_millis(500) {
            series.before = series.last;
        }
        series.last = last;
        series.sample = self.samples;
        series.trend.add(last.value);
    }

    /// Returns how many exports or snapshots were added.
    pub(crate) fn samples(&self) -> usize {
        self.samples
    }

    /// Returns the series of the latest sample.
    pub(crate) fn current(&self) -> impl Iterator<Item = (&str, &Attributes, &Series)> {
        let current = self.series.iter().filter(|(_, series)| series.sample == self.samples);
        current.map(|((name, attributes), series)| (name.as_str(), attributes, series))
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = (&Attributes, &Series)> {
        self.current()
            .filter(move |(found, ..)| *found == name)
            .map(|(_, attributes, series)| (attributes, series))
    }

    /// Returns the first series of a metric.
    pub(crate) fn get(&self, name: &str) -> Option<&Series> {
        self.all(name).next().map(|(_, series)| series)
    }

    /// Returns the series of a metric for one task name.
    pub(crate) fn of_task(&self, name: &str, task: &str) -> Option<&Series> {
        self.all(name)
            .find(|(attributes, _)| attributes.get(TASK).is_some_and(|name| name == task))
            .map(|found| found.1)
    }
}

impl Series {
    pub(crate) fn value(&self) -> f64 {
        self.last.value
    }

    /// Returns the growth between the latest two samples.
    pub(crate) fn step(&self) -> f64 {
        self.last.value - self.before.value
    }

    /// Returns the time of the latest sample.
    pub(crate) fn at(&self) -> Instant {
        self.last.at
    }

    /// Returns true for an amount that grows for good.
    pub(crate) fn leaks(&self) -> bool {
        self.kind == Kind::Amount && self.trend.is_leak()
    }

    pub(crate) fn now(&self) -> String {
        match self.kind {
            Kind::Histogram => {
                format!("mean {}", readable(self.last.sum / self.last.value.max(1.0), &self.unit, ""))
            }
            _ => readable(self.last.value, &self.unit, ""),
        }
    }

    /// Returns the growth of a counter in a second.
    pub(crate) fn rate(&self) -> String {
        let seconds = (self.last.at - self.before.at).as_secs_f64();
        match self.kind {
            Kind::Counter if seconds > 0.0 => readable(self.step() / seconds, &self.unit, ""),
            _ => String::new(),
        }
    }

    /// Returns the growth of an amount since the first sample.
    pub(crate) fn growth(&self) -> String {
        let growth = self.last.value - self.first.value;
        match self.kind {
            Kind::Amount if growth != 0.0 => readable(growth, &self.unit, "+"),
            _ => String::new(),
        }
    }

    /// Returns the growth of an amount in a second, since the first sample.
    pub(crate) fn growth_rate(&self) -> String {
        let seconds = (self.last.at - self.first.at).as_secs_f64();
        let rate = if seconds > 0.0 { (self.last.value - self.first.value) / seconds } else { 0.0 };
        readable(rate, &self.unit, "+")
    }
}

fn kind(metric: &Metric) -> Kind {
    match &metric.data {
        Some(Data::Sum(sum)) if sum.is_monotonic => Kind::Counter,
        Some(Data::Sum(_)) => Kind::Amount,
        Some(Data::Histogram(_)) => Kind::Histogram,
        _ => Kind::Gauge,
    }
}
