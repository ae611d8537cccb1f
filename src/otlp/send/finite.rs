//! JSON has no infinity and no NaN: the points that have them are left out of it.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;

pub(crate) fn finite(mut message: ExportMetricsServiceRequest) -> ExportMetricsServiceRequest {
    let scopes = message.resource_metrics.iter_mut().flat_map(|resource| &mut resource.scope_metrics);
    for metric in scopes.flat_map(|scope| &mut scope.metrics) {
        match &mut metric.data {
            Some(Data::Gauge(gauge)) => gauge.data_points.retain(is_finite),
            Some(Data::Sum(sum)) => sum.data_points.retain(is_finite),
            // The counts of the buckets are still right.
            Some(Data::Histogram(histogram)) => {
                for point in &mut histogram.data_points {
                    [&mut point.sum, &mut point.min, &mut point.max].into_iter().for_each(drop_infinite);
                }
            }
            Some(Data::ExponentialHistogram(histogram)) => {
                for point in &mut histogram.data_points {
                    [&mut point.sum, &mut point.min, &mut point.max].into_iter().for_each(drop_infinite);
                }
            }
            Some(Data::Summary(_)) | None => {}
        }
    }
    message
}

fn is_finite(point: &NumberDataPoint) -> bool {
    !matches!(point.value, Some(Value::AsDouble(value)) if !value.is_finite())
}

fn drop_infinite(number: &mut Option<f64>) {
    *number = number.filter(|number| number.is_finite());
}
