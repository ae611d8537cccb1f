//! Shipping: a meter provider that exports over OTLP, from the standard variables. Feature `otlp`.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use opentelemetry_instrumentation_runtime::{init_runtime_metrics, otlp};
//!
//! let telemetry = otlp::install()?;
//! init_runtime_metrics(&telemetry.meter());
//! // ... the service ...
//! telemetry.shutdown()?; // the last export; dropping `telemetry` does the same
//! # Ok(())
//! # }
//! ```
//!
//! # Variables
//! What is not set has the default of OpenTelemetry's specification; a value that cannot be used is an error. Those of the
//! exporter exist for metrics alone too, `OTEL_EXPORTER_OTLP_METRICS_...`, which goes first.
//!
//! | variable | |
//! |---|---|
//! | `OTEL_SDK_DISABLED` | `true`: nothing is exported |
//! | `OTEL_METRICS_EXPORTER` | `otlp`, `console` (a line for each point), `none` |
//! | `OTEL_METRIC_EXPORT_INTERVAL` | milliseconds, 60000 |
//! | `OTEL_METRIC_EXPORT_TIMEOUT`, `OTEL_EXPORTER_OTLP_TIMEOUT` | milliseconds, 30000 and 10000; the shorter one counts |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | who exports |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL` | `http/protobuf`, which is the default where it is compiled in, or `grpc` |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | `http://localhost:4318`, for gRPC `http://localhost:4317`; over HTTP, that for all signals gets `/v1/metrics` appended |
//! | `OTEL_EXPORTER_OTLP_INSECURE` | `true`: no TLS where an endpoint for gRPC has no scheme |
//! | `OTEL_EXPORTER_OTLP_HEADERS` | `key=value,key=value`, percent-encoded |
//! | `OTEL_EXPORTER_OTLP_COMPRESSION` | `none`, `gzip`, `zstd` (features `otlp-gzip`, `otlp-zstd`) |
//! | `OTEL_EXPORTER_OTLP_CERTIFICATE`, `..._CLIENT_CERTIFICATE`, `..._CLIENT_KEY` | files in PEM (feature `otlp-tls`) |
//! | `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` | `cumulative`, `delta`, `lowmemory` |
//!
//! `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION` is not looked at.
//!
//! # Outages
//! A warning when exports begin to fail and a line when they succeed again, as `tracing` events of the target
//! `opentelemetry-instrumentation-runtime`: whoever has no subscriber does not see them.
//!
//! # Threads
//! One thread does everything: it collects, it encodes, and it drives the connection on a Tokio runtime of its own.
//! Hence it makes no difference where [`install`](install()), [`Telemetry::force_flush`] and [`Telemetry::shutdown`]
//! are called: inside any Tokio runtime, on its only worker, on a plain thread, without Tokio, while a panic unwinds,
//! or after the application's runtime is gone. None of them takes longer than the timeout of an export.

mod builder;
mod config;
mod error;
mod export;
mod send;
mod telemetry;

pub use builder::Builder;
pub use config::target::Protocol;
pub use error::Error;
pub use telemetry::Telemetry;

/// Exports as the standard variables say, and makes the provider the global one.
///
/// # Errors
/// A variable with a value that cannot be used, by name; or no thread to be had.
pub fn install() -> Result<Telemetry, Error> {
    builder().install()
}

/// Settings in code rather than in the environment.
pub fn builder() -> Builder {
    Builder::default()
}
