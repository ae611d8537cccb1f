//! What arrived over the wire, as a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use crate::receiver::{Export, points};

/// Each series with its first and latest value.
#[derive(Default)]
pub(crate) struct Table {
    /// By metric and attributes.
    series: BTreeMap<(String, BTreeMap<String, String>), Series>,
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
                let last = Sample { at: export.at, value: point.value, sum: point.sum.unwrap_or_default() };
                let key = (metric.name.clone(), point.attributes);
                let series = self.series.entry(key).or_insert_with(|| Series {
                    unit: metric.unit.clone(),
                    kind: kind(metric),
                    first: last,
                    before: last,
                    last,
                    export: 0,
                });
                // The export at shutdown may come too soon after the last one for a rate of its own.
                if last.at - series.last.at > Duration::from_millis(500) {
                    series.before = series.last;
                }
                series.last = last;
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

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = || self.series.iter().filter(|(_, series)| series.export == self.exports);
        let count = current().count();
        writeln!(f, "export {}: {count} series received over OTLP (Ctrl-C ends it)\n", self.exports)?;
        let tasks: BTreeSet<_> = current().filter_map(|((_, attributes), _)| attributes.get(TASK)).collect();
        writeln!(
            f,
            "{:<24}{:>8}{:>12}{:>12}{:>12}{:>12}{:>12}{:>16}",
            "task", "alive", "since start", "spawned/s", "polls/s", "busy/s", "slow polls", "allocated/s"
        )?;
        for task in tasks {
            let series = |metric: &str| {
                current().find(|((name, attributes), _)| name == metric && attributes.get(TASK) == Some(task))
            };
            let cell = |metric: &str, show: fn(&Series) -> String| {
                series(metric).map(|(_, series)| show(series)).unwrap_or_default()
            };
            writeln!(
                f,
                "{task:<24}{:>8}{:>12}{:>12}{:>12}{:>12}{:>12}{:>16}",
                cell("rust.task.count", Series::now),
                cell("rust.task.count", Series::growth),
                cell("rust.task.spawned", Series::rate),
                cell("rust.task.polls", Series::rate),
                cell("rust.task.busy.time", Series::rate),
                cell("rust.task.slow_polls", Series::now),
                cell("rust.task.memory.allocated", Series::rate),
            )?;
        }
        writeln!(f, "\n{:<36}{:<14}{:>14}{:>14}{:>14}", "metric", "", "now", "a second", "since start")?;
        for ((name, attributes), series) in
            current().filter(|((_, attributes), _)| !attributes.contains_key(TASK))
        {
            let attributes = attributes.values().map(String::as_str).collect::<Vec<_>>().join(" ");
            let [now, rate, growth] = [series.now(), series.rate(), series.growth()];
            writeln!(f, "{name:<36}{attributes:<14}{now:>14}{rate:>14}{growth:>14}")?;
        }
        Ok(())
    }
}

impl Series {
    fn now(&self) -> String {
        match self.kind {
            Kind::Histogram => {
                format!("mean {}", readable(self.last.sum / self.last.value.max(1.0), &self.unit, ""))
            }
            _ => readable(self.last.value, &self.unit, ""),
        }
    }

    fn rate(&self) -> String {
        let seconds = (self.last.at - self.before.at).as_secs_f64();
        match self.kind {
            Kind::Counter if seconds > 0.0 => {
                readable((self.last.value - self.before.value) / seconds, &self.unit, "")
            }
            _ => String::new(),
        }
    }

    fn growth(&self) -> String {
        let growth = self.last.value - self.first.value;
        match self.kind {
            Kind::Amount if growth != 0.0 => readable(growth, &self.unit, "+"),
            _ => String::new(),
        }
    }
}

const TASK: &str = "rust.task.name";

fn kind(metric: &Metric) -> Kind {
    match &metric.data {
        Some(Data::Sum(sum)) if sum.is_monotonic => Kind::Counter,
        Some(Data::Sum(_)) => Kind::Amount,
        Some(Data::Histogram(_)) => Kind::Histogram,
        _ => Kind::Gauge,
    }
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
