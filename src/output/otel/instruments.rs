//! Reports readings through OpenTelemetry instruments.

use opentelemetry::metrics::Meter;
use opentelemetry::{Key, KeyValue, StringValue};

use crate::collector::Recorder;
use crate::metric::{Kind, Metric};
use crate::snapshot::{AttributeValue, Attributes, Point, Value};

/// Registers the instrument of a metric that is not a histogram. `read` passes its points on each collection.
pub(crate) fn register(
    meter: &Meter,
    metric: &'static Metric,
    read: impl Fn(&mut dyn FnMut(&Point)) + Send + Sync + 'static,
) {
    macro_rules! observable {
        ($build:ident, $number:ident) => {
            drop(
                meter
                    .$build(metric.name())
                    .with_unit(metric.unit())
                    .with_description(metric.description())
                    .with_callback(move |observer| {
                        read(&mut |point| {
                            with_key_values(&point.attributes, |attributes| {
                                if let Some(value) = $number(&point.value) {
                                    observer.observe(value, attributes);
                                }
                            });
                        });
                    })
                    .build(),
            )
        };
    }
    // All times are seconds; all other values are whole numbers.
    match (metric.kind(), metric.unit()) {
        (Kind::Counter, "s") => observable!(f64_observable_counter, real),
        (Kind::Counter, _) => observable!(u64_observable_counter, count),
        (Kind::UpDownCounter, _) => observable!(i64_observable_up_down_counter, amount),
        (Kind::Gauge, "s") => observable!(f64_observable_gauge, real),
        (Kind::Gauge, _) => observable!(u64_observable_gauge, count),
        // Histograms cannot be observed: see `histogram`.
        (Kind::Histogram, _) => {}
    }
}

/// Registers a histogram and returns the function that records into it.
///
/// The function takes attributes, a value and the number of times to record it. A callback may call it.
pub(crate) fn histogram(meter: &Meter, metric: &'static Metric, bounds: &[f64]) -> Recorder {
    let histogram = meter
        .f64_histogram(metric.name())
        .with_unit(metric.unit())
        .with_description(metric.description())
        .with_boundaries(bounds.to_vec())
        .build();
    Box::new(move |attributes, value, times| {
        with_key_values(attributes, |attributes| {
            (0..times).for_each(|_| histogram.record(value, attributes));
        });
    })
}

fn real(value: &Value) -> Option<f64> {
    value.as_f64()
}

fn amount(value: &Value) -> Option<i64> {
    value.as_u64().map(|value| i64::try_from(value).unwrap_or(i64::MAX))
}

/// Limits a count to `i64::MAX`, since OTLP carries integers as `i64` and a larger one would arrive as 0.
fn count(value: &Value) -> Option<u64> {
    amount(value).map(i64::unsigned_abs)
}

/// Converts the attributes to OpenTelemetry's without allocating.
fn with_key_values(attributes: &Attributes, act: impl FnOnce(&[KeyValue])) {
    if attributes.has_common() {
        with_buffer::<{ Attributes::MAX_LEN + Attributes::MAX_COMMON }>(attributes, act);
    } else {
        with_buffer::<{ Attributes::MAX_LEN }>(attributes, act);
    }
}

fn with_buffer<const MAX: usize>(attributes: &Attributes, act: impl FnOnce(&[KeyValue])) {
    let mut list =
        attributes.iter().map(|(key, value)| KeyValue::new(Key::from_static_str(key), key_value(value)));
    let mut count = 0;
    let buffer: [KeyValue; MAX] = std::array::from_fn(|_| match list.next() {
        Some(attribute) => {
            count += 1;
            attribute
        }
        None => KeyValue::new(Key::from_static_str(""), false),
    });
    act(buffer.get(..count).unwrap_or_default());
}

fn key_value(value: &AttributeValue) -> opentelemetry::Value {
    match value {
        AttributeValue::Static(text) => StringValue::from(*text).into(),
        AttributeValue::Shared(text) => StringValue::from(text.clone()).into(),
        AttributeValue::Int(number) => (*number).into(),
    }
}
