//! Logs through OpenTelemetry's internal log, which emits `tracing` events.

/// Logs a warning. Does nothing without the feature `internal-logs`.
#[cfg_attr(not(feature = "internal-logs"), allow(unused_variables, reason = "unused without that feature"))]
pub(crate) fn warn(message: &'static str, about: &str) {
    opentelemetry::otel_warn!(name: "RuntimeMetrics.Warning", message = message, about = about);
}

/// Logs the end of a condition that a warning reported.
#[cfg(feature = "_otlp")]
pub(crate) fn info(message: &'static str, about: &str) {
    opentelemetry::otel_info!(name: "RuntimeMetrics.Info", message = message, about = about);
}
