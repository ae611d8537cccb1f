//! What arrived over the wire, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stdout};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point};

/// Each series with its first and latest value.
#[derive(Default)]
pub(crate) struct Table {
    series: BTreeMap<(String, String), Series>,
    exports: usize,
}

struct Series {
    unit: String,
    kind: Kind,
    first: Sample,
    before: Sample,
    last: Sample,
    export: usize,
}

#[derive(Clone, Copy)]
struct Sample {
    seconds: f64,
    value: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    Amount,
    Gauge,
    /// The sum beside the count.
    Histogram(f64),
}

impl Table {
    /// Takes in one export.
    pub(crate) fn add(&mut self, request: &ExportMetricsServiceRequest) {
        self.exports += 1;
        let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
        for metric in scopes.flat_map(|scope| &scope.metrics) {
            for (attributes, kind, sample) in points(metric) {
                let series = self.series.entry((metric.name.clone(), attributes)).or_insert_with(|| Series {
                    unit: metric.unit.clone(),
                    kind,
                    first: sample,
                    before: sample,
                    last: sample,
                    export: 0,
                });
                series.kind = kind;
                series.before = std::mem::replace(&mut series.last, sample);
                series.export = self.exports;
            }
        }
    }

    /// Shows the latest export: in place on a terminal, as plain lines elsewhere.
    pub(crate) fn show(&self) -> std::io::Result<()> {
        let mut out = stdout().lock();
        let text = self.to_string();
        if out.is_terminal() {
            // As much as fits: scrolling would end the refreshing in place.
            let height = terminal_size::terminal_size().map_or(usize::MAX, |(_, height)| usize::from(height.0));
            let lines = text.lines().take(height.saturating_sub(1));
            write!(out, "\x1b[H")?;
            lines.into_iter().try_for_each(|line| writeln!(out, "{line}\x1b[K"))?;
            write!(out, "\x1b[J")?;
        } else {
            writeln!(out, "{text}")?;
        }
        out.flush()
    }

    pub(crate) fn exports(&self) -> usize {
        self.exports
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "export {}: {} series received over OTLP (Ctrl-C ends it)", self.exports, self.series.len())?;
        writeln!(f, "{:<38} {:<22} {:>12} {:>14} {:>14}", "metric", "", "now", "a second", "since start")?;
        for ((name, attributes), series) in &self.series {
            if series.export != self.exports {
                continue;
            }
            let unit = &series.unit;
            let rate = match series.kind {
                Kind::Counter => {
                    rate(series.before, series.last).map(|rate| readable(rate, unit, "")).unwrap_or_default()
                }
                _ => String::new(),
            };
            let (now, growth) = match series.kind {
                Kind::Histogram(sum) if series.last.value > 0.0 => {
                    (format!("mean {}", readable(sum / series.last.value, unit, "")), String::new())
                }
                Kind::Amount => (
                    readable(series.last.value, unit, ""),
                    readable(series.last.value - series.first.value, unit, "+"),
                ),
                _ => (readable(series.last.value, unit, ""), String::new()),
            };
            writeln!(f, "{name:<38} {attributes:<22} {now:>12} {rate:>14} {growth:>14}")?;
        }
        Ok(())
    }
}

fn rate(before: Sample, last: Sample) -> Option<f64> {
    let seconds = last.seconds - before.seconds;
    (seconds > 0.0).then(|| (last.value - before.value) / seconds)
}

/// `12.3 MB`, `4.5 ms`, `678 k`: three digits and a unit that a person reads at a glance.
fn readable(value: f64, unit: &str, plus: &str) -> String {
    let sign = if value < 0.0 { "-" } else { plus };
    let size = value.abs();
    let (scaled, prefix) = match size {
        0.0 => (0.0, ""),
        _ if unit == "s" && size < 1e-3 => (size * 1e6, "u"),
        _ if unit == "s" && size < 1.0 => (size * 1e3, "m"),
        _ if unit == "s" || size < 1e3 => (size, ""),
        _ if size < 1e6 => (size / 1e3, "k"),
        _ if size < 1e9 => (size / 1e6, "M"),
        _ => (size / 1e9, "G"),
    };
    let unit = match unit {
        "By" => "B",
        "s" => "s",
        _ => "",
    };
    let whole = prefix.is_empty() && scaled.fract() == 0.0 && unit != "s";
    let digits = if whole || scaled >= 100.0 { 0 } else { 1 };
    format!("{sign}{scaled:.digits$} {prefix}{unit}").trim_end().to_owned()
}

fn points(metric: &Metric) -> Vec<(String, Kind, Sample)> {
    let at = |nanoseconds: u64, value| Sample { seconds: nanoseconds as f64 / 1e9, value };
    let number = |value: &Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsDouble(value)) => *value,
        Some(number_data_point::Value::AsInt(value)) => *value as f64,
        None => f64::NAN,
    };
    match &metric.data {
        Some(Data::Sum(sum)) => {
            let kind = if sum.is_monotonic { Kind::Counter } else { Kind::Amount };
            sum.data_points
                .iter()
                .map(|p| (text(&p.attributes), kind, at(p.time_unix_nano, number(&p.value))))
                .collect()
        }
        Some(Data::Gauge(gauge)) => gauge
            .data_points
            .iter()
            .map(|p| (text(&p.attributes), Kind::Gauge, at(p.time_unix_nano, number(&p.value))))
            .collect(),
        Some(Data::Histogram(histogram)) => histogram
            .data_points
            .iter()
            .map(|p| {
                let kind = Kind::Histogram(p.sum.unwrap_or_default());
                (text(&p.attributes), kind, at(p.time_unix_nano, p.count as f64))
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The values suffice: the metric's name says what they are of.
fn text(attributes: &[KeyValue]) -> String {
    let mut text = String::new();
    for attribute in attributes {
        let separator = if text.is_empty() { "" } else { " " };
        let _ = match attribute.value.as_ref() {
            Some(AnyValue { value: Some(any_value::Value::StringValue(value)) }) => {
                write!(text, "{separator}{value}")
            }
            Some(AnyValue { value: Some(any_value::Value::IntValue(value)) }) => {
                write!(text, "{separator}{value}")
            }
            other => write!(text, "{separator}{other:?}"),
        };
    }
    text
}
