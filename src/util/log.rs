//! Writes to the application's log through OpenTelemetry's own channel.

/// Logs a warning. Without the feature `internal-logs` it does nothing.
#[cfg_attr(
    not(feature = "internal-logs"),
    allow(unused_variables, reason = "without that feature it is silent")
)]
pub(crate) fn warn(message: &'static str, about: &str) {
    opentelemetry::otel_warn!(name: "RuntimeMetrics.Warning", message = message, about = about);
}

/// Logs good news.
#[cfg(feature = "_otlp")]
pub(crate) fn info(message: &'static str, about: &str) {
    opentelemetry::otel_info!(name: "RuntimeMetrics.Info", message = message, about = about);
}
