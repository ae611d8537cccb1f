//! Exports over OTLP: a meter provider made from the standard variables. Feature `otlp`.
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
//! A variable that is empty is not set. Those of the exporter exist for metrics alone too,
//! `OTEL_EXPORTER_OTLP_METRICS_...`, which go first. Those of proxies may be in lower case.
//!
//! | variable | |
//! |---|---|
//! | `OTEL_SDK_DISABLED` | `true`: nothing is exported |
//! | `OTEL_METRICS_EXPORTER` | `otlp`, `console` (a line for each point), `none`; of a list the first one of these |
//! | `OTEL_METRIC_EXPORT_INTERVAL` | milliseconds, 60000 |
//! | `OTEL_METRIC_EXPORT_TIMEOUT`, `OTEL_EXPORTER_OTLP_TIMEOUT` | milliseconds, 30000 and 10000; the shorter one counts, and 0 is no limit |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | who exports |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL` | `http/protobuf`, the default if it is compiled; `grpc`; `http/json` (feature `otlp-http-json`) |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | `http://localhost:4318`, for gRPC `http://localhost:4317`, or a Unix socket, `unix:///path`; over HTTP, `/v1/metrics` is appended to that for all signals |
//! | `OTEL_EXPORTER_OTLP_INSECURE` | `true`: no TLS if an endpoint for gRPC has no scheme |
//! | `OTEL_EXPORTER_OTLP_HEADERS` | `key=value,key=value`, percent-encoded |
//! | `OTEL_EXPORTER_OTLP_COMPRESSION` | `none`, `gzip`, `zstd` (features `otlp-gzip`, `otlp-zstd`) |
//! | `OTEL_EXPORTER_OTLP_CERTIFICATE` | the PEM file of the authorities to trust (feature `otlp-tls`) |
//! | `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`, `OTEL_EXPORTER_OTLP_CLIENT_KEY` | PEM files (feature `otlp-tls`) |
//! | `SSL_CERT_FILE`, `SSL_CERT_DIR` | where the authorities of the system are (feature `otlp-tls`) |
//! | `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` | `cumulative`, `delta`, `lowmemory` |
//! | `HTTPS_PROXY`, `HTTP_PROXY` | the URL of a proxy, for endpoints with that scheme; never for this machine |
//! | `NO_PROXY` | hosts, domains and networks, with a port or without, that are reached without a proxy; `*` for all |
//!
//! Variables are often shared by many services. Hence a number, a Boolean, a word or an attribute that cannot be used is
//! ignored with one warning, as the specification says. An endpoint, a header or a file of TLS that cannot be used is an
//! error, since nothing sensible could be sent. `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION` is not read.
//!
//! Files of TLS are read again when a connection is made after they changed. [`Builder::header_fn`] is for tokens that
//! expire.
//!
//! # Outages
//! There is a warning when exports begin to fail and a line with their number when they succeed again, as `tracing`
//! events of the target `opentelemetry-instrumentation-runtime`. A program without a subscriber does not see them.
//!
//! No message contains the value of a header, the text of a key or a secret in a URL, even if an endpoint echoes it.
//!
//! # Profiles
//! With the feature `otlp-profiles`, heap and stall profiles go to the same endpoint as the metrics: about once a minute,
//! with every n-th export, the first time with the second one. CPU profiles are exported on request
//! (`Builder::cpu_profile_every`). The signal is experimental, and so is this feature: an endpoint may not have the
//! service, and the content may change with any release. The messages are those of OTLP 1.10, `v1development`.
//!
//! - Each profile is the change since the last one that was delivered, so that values of `inuse_objects` and `inuse_space`
//!   may be negative. A change that was not delivered is part of the next one.
//! - There is a profile for each type of value. Samples have the attributes `rust.task.name`, `tokio.runtime.name` and
//!   `tokio.stall.cause`, like the metrics, and `thread.name`. Resource, headers, TLS, compression, timeout and retries are
//!   those of the metrics.
//! - The heap profile must be running, for example by `Builder::heap_profile` of the metrics. A profile without samples is
//!   not sent.
//! - Over HTTP the path is `/v1development/profiles` in place of `/v1/metrics`. If
//!   `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` does not end with the latter, a warning says that no profiles are exported.
//! - If the endpoint has no service for profiles (404 or UNIMPLEMENTED), one line says so, and none are sent until the
//!   process starts again. The OpenTelemetry Collector needs `--feature-gates=service.profilesSupport`.
//! - A loss of profiles is logged, and is no error of [`Telemetry::force_flush`] and [`Telemetry::shutdown`]. A shutdown sends
//!   the last change within its time.
//!
//! # Threads
//! One thread does everything, and with `otlp-profiles` a second one the same for profiles: it collects, it encodes, and it runs the connection on its own Tokio runtime. Hence it makes
//! no difference where [`install`](install()), [`Telemetry::force_flush`] and [`Telemetry::shutdown`] are called: inside
//! any Tokio runtime, on its only worker, on a plain thread, without Tokio, while a panic unwinds, or after the
//! application's runtime is gone. The thread blocks all signals. A flush takes no longer than the timeout of an export,
//! and a shutdown 5 s by default.
//!
//! A fork has no thread and exports nothing; it may install its own exporter, which is another instance.

mod builder;
mod config;
mod error;
mod export;
mod send;
mod telemetry;

pub use builder::{Builder, builder, install};
pub use config::options::Protocol;
pub use error::Error;
pub use telemetry::Telemetry;
