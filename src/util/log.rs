//! Logs through OpenTelemetry's internal log, which emits `tracing` events.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::mutex::Mutex;

/// Logs a warning. Does nothing without the feature `internal-logs`.
#[cfg_attr(not(feature = "internal-logs"), allow(unused_variables, reason = "unused without that feature"))]
pub(crate) fn warn(message: &'static str, about: &str) {
    opentelemetry::otel_warn!(name: "RuntimeMetrics.Warning", message = message, about = about);
}

/// Returns true if a warning has a reader, for those whose text takes work.
#[cfg(feature = "profile")]
pub(crate) fn warning_is_read() -> bool {
    #[cfg(feature = "internal-logs")]
    return tracing::enabled!(tracing::Level::WARN);
    #[cfg(not(feature = "internal-logs"))]
    false
}

/// Logs the end of a condition that a warning reported.
#[cfg(feature = "_otlp")]
pub(crate) fn info(message: &'static str, about: &str) {
    opentelemetry::otel_info!(name: "RuntimeMetrics.Info", message = message, about = about);
}

static KEPT: Mutex<Vec<(&'static str, String)>> = Mutex::new(Vec::new());
static IS_ANY_KEPT: AtomicBool = AtomicBool::new(false);

/// Keeps a warning for [`warn_of_kept`]. A holder of a lock must not log, since the application's log may read the metrics.
pub(crate) fn keep_warning(message: &'static str, about: impl Into<String>) {
    KEPT.lock().push((message, about.into()));
    IS_ANY_KEPT.store(true, Relaxed);
}

/// Logs the warnings that were kept.
pub(crate) fn warn_of_kept() {
    if IS_ANY_KEPT.load(Relaxed) {
        IS_ANY_KEPT.store(false, Relaxed);
        let kept = std::mem::take(&mut *KEPT.lock());
        kept.into_iter().for_each(|(message, about)| warn(message, &about));
    }
}
