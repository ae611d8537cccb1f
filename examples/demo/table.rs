//! What arrived over the wire, as a table.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stdout};
use std::time::Instant;

use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use crate::receiver::{Export, points};

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
    at: Instant,
    value: f64,
    /// Of a histogram, beside the count.
    sum: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    Amount,
    Gauge,
    Histogram,
}

impl Table {
    /// Takes in one export.
    pub(crate) fn add(&mut self, export: &Export) {
        self.exports += 1;
        for metric in export.metrics() {
            for point in points(metric) {
                let attributes = point.attributes.into_values().collect::<Vec<_>>().join(" ");
                let last = Sample { at: export.at, value: point.value, sum: point.sum.unwrap_or_default() };
                let series = self.series.entry((metric.name.clone(), attributes)).or_insert_with(|| Series {
                    unit: metric.unit.clone(),
                    kind: kind(metric),
                    first: last,
                    before: last,
                    last,
                    export: 0,
                });
                series.before = std::mem::replace(&mut series.last, last);
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
            let height =
                terminal_size::terminal_size().map_or(usize::MAX, |(_, height)| usize::from(height.0));
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
        writeln!(
            f,
            "export {}: {} series received over OTLP (Ctrl-C ends it)",
            self.exports,
            self.series.len()
        )?;
        writeln!(f, "{:<38} {:<22} {:>12} {:>14} {:>14}", "metric", "", "now", "a second", "since start")?;
        for ((name, attributes), series) in &self.series {
            if series.export != self.exports {
                continue;
            }
            let Series { unit, kind, first, before, last, .. } = series;
            let (now, rate, growth) = match kind {
                Kind::Counter => {
                    let rate = rate(before, last).map(|rate| readable(rate, unit, "")).unwrap_or_default();
                    (readable(last.value, unit, ""), rate, String::new())
                }
                Kind::Amount => {
                    let growth = last.value - first.value;
                    let growth = if growth == 0.0 { String::new() } else { readable(growth, unit, "+") };
                    (readable(last.value, unit, ""), String::new(), growth)
                }
                Kind::Gauge => (readable(last.value, unit, ""), String::new(), String::new()),
                Kind::Histogram => {
                    let mean = readable(last.sum / last.value.max(1.0), unit, "");
                    (format!("mean {mean}"), String::new(), String::new())
                }
            };
            writeln!(f, "{name:<38} {attributes:<22} {now:>12} {rate:>14} {growth:>14}")?;
        }
        Ok(())
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

fn rate(before: &Sample, last: &Sample) -> Option<f64> {
    let seconds = (last.at - before.at).as_secs_f64();
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
    let whole = prefix.is_empty() && scaled.fract() == 0.0;
    let digits = if whole || scaled >= 100.0 { 0 } else { 1 };
    format!("{sign}{scaled:.digits$} {prefix}{unit}").trim_end().to_owned()
}
