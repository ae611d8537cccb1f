//! `OTEL_METRICS_EXPORTER=console`: prints a line for each point.

use std::fmt::Display;
use std::io::{self, Write};

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics};

use crate::otlp::send::outcome::{Outcome, Retry, SendError};

pub(crate) fn print(metrics: &ResourceMetrics) -> Result<Outcome, SendError> {
    let mut text = Vec::new();
    for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
        // Writing into memory cannot fail.
        let _ = match metric.data() {
            AggregatedMetrics::F64(data) => lines(&mut text, metric, data),
            AggregatedMetrics::I64(data) => lines(&mut text, metric, data),
            AggregatedMetrics::U64(data) => lines(&mut text, metric, data),
        };
    }
    io::stdout()
        .lock()
        .write_all(&text)
        .map(|()| Outcome::ACCEPTED)
        .map_err(|error| SendError::new(format!("the console: {error}"), Retry::Never))
}

fn lines<T: Copy + Display>(out: &mut impl Write, metric: &Metric, data: &MetricData<T>) -> io::Result<()> {
    let name = metric.name();
    let unit = if metric.unit().is_empty() { String::new() } else { format!(" {}", metric.unit()) };
    match data {
        MetricData::Gauge(gauge) => gauge.data_points().try_for_each(|point| {
            writeln!(out, "{name}{} {}{unit}", labels(point.attributes()), point.value())
        }),
        MetricData::Sum(sum) => sum.data_points().try_for_each(|point| {
            writeln!(out, "{name}{} {}{unit}", labels(point.attributes()), point.value())
        }),
        MetricData::Histogram(histogram) => histogram.data_points().try_for_each(|point| {
            let (count, sum) = (point.count(), point.sum());
            writeln!(out, "{name}{} {count} samples, in total {sum}{unit}", labels(point.attributes()))
        }),
        MetricData::ExponentialHistogram(histogram) => histogram.data_points().try_for_each(|point| {
            let (count, sum) = (point.count(), point.sum());
            writeln!(out, "{name}{} {count} samples, in total {sum}{unit}", labels(point.attributes()))
        }),
    }
}

fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    let labels: Vec<_> = attributes.map(|label| format!("{}={}", label.key, label.value)).collect();
    match labels.as_slice() {
        [] => String::new(),
        labels => format!("{{{}}}", labels.join(",")),
    }
}
