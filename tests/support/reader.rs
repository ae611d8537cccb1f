//! Collects through a real SDK reader on demand, and flattens the result.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Temporality};

/// The SDK's own manual reader, which can be shared between a provider and a test.
#[derive(Clone, Debug)]
pub struct Reader(Arc<ManualReader>);

impl Reader {
    pub fn new(temporality: Temporality) -> Self {
        Reader(Arc::new(ManualReader::builder().with_temporality(temporality).build()))
    }

    pub fn cumulative() -> Self {
        Self::new(Temporality::Cumulative)
    }

    /// Collects, and returns the exported metrics by name.
    pub fn export(&self) -> BTreeMap<String, Exported> {
        let mut metrics = ResourceMetrics::default();
        self.0.collect(&mut metrics).expect("the provider is alive");
        let mut all = BTreeMap::new();
        for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
            let (kind, monotonic, points) = match metric.data() {
                AggregatedMetrics::F64(data) => flatten(data, |value| value),
                AggregatedMetrics::U64(data) => flatten(data, |value| value as f64),
                AggregatedMetrics::I64(data) => flatten(data, |value| value as f64),
            };
            let exported = Exported {
                kind,
                monotonic,
                float: matches!(metric.data(), AggregatedMetrics::F64(_)),
                unit: metric.unit().into(),
                description: metric.description().into(),
                points,
            };
            assert!(all.insert(metric.name().to_owned(), exported).is_none(), "{} twice", metric.name());
        }
        all
    }

    /// Collects, and returns the metric's only point.
    pub fn point(&self, name: &str) -> Option<ExportedPoint> {
        let mut points = self.export().remove(name)?.points;
        assert_eq!(points.len(), 1, "{name}: {points:?}");
        points.pop()
    }

    /// Collects, and returns the value of the metric's only point.
    pub fn value(&self, name: &str) -> Option<f64> {
        Some(self.point(name)?.value)
    }

    /// Collects, and returns the sum over the buckets of the histogram's only point.
    pub fn count(&self, name: &str) -> u64 {
        self.point(name).map_or(0, |point| point.counts.iter().sum())
    }
}

/// Returns a provider for these readers.
pub fn provider(readers: &[&Reader]) -> SdkMeterProvider {
    readers
        .iter()
        .fold(SdkMeterProvider::builder(), |builder, &reader| builder.with_reader(reader.clone()))
        .build()
}

/// One metric of a collection.
#[derive(Debug, PartialEq)]
pub struct Exported {
    pub kind: &'static str,
    pub monotonic: bool,
    pub float: bool,
    pub unit: String,
    pub description: String,
    pub points: Vec<ExportedPoint>,
}

/// One point. The value of a histogram is the count of its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportedPoint {
    pub attributes: BTreeMap<String, String>,
    pub value: f64,
    pub sum: f64,
    pub bounds: Vec<f64>,
    pub counts: Vec<u64>,
}

fn flatten<T: Copy>(data: &MetricData<T>, number: fn(T) -> f64) -> (&'static str, bool, Vec<ExportedPoint>) {
    let point = |attributes: BTreeMap<String, String>, value: f64| ExportedPoint {
        attributes,
        value,
        sum: value,
        bounds: Vec::new(),
        counts: Vec::new(),
    };
    fn attributes<'a>(list: impl Iterator<Item = &'a opentelemetry::KeyValue>) -> BTreeMap<String, String> {
        list.map(|attribute| (attribute.key.to_string(), attribute.value.to_string())).collect()
    }
    match data {
        MetricData::Sum(sum) => (
            "sum",
            sum.is_monotonic(),
            sum.data_points().map(|p| point(attributes(p.attributes()), number(p.value()))).collect(),
        ),
        MetricData::Gauge(gauge) => (
            "gauge",
            false,
            gauge.data_points().map(|p| point(attributes(p.attributes()), number(p.value()))).collect(),
        ),
        MetricData::Histogram(histogram) => (
            "histogram",
            false,
            histogram
                .data_points()
                .map(|p| ExportedPoint {
                    attributes: attributes(p.attributes()),
                    value: p.count() as f64,
                    sum: number(p.sum()),
                    bounds: p.bounds().collect(),
                    counts: p.bucket_counts().collect(),
                })
                .collect(),
        ),
        MetricData::ExponentialHistogram(_) => panic!("nothing here is exponential"),
    }
}

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}
