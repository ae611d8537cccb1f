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
//! One thread does everything: it collects, it encodes, and it drives the connection on a Tokio runtime of its own.
//! Hence it makes no difference where [`install`](install()), [`Telemetry::force_flush`] and [`Telemetry::shutdown`]
//! are called: inside any Tokio runtime, on its only worker, on a plain thread, without Tokio, while a panic unwinds,
//! or after the application's runtime is gone. None of them takes longer than the timeout of an export.

#[cfg(feature = "otlp-tls")]
mod alert;
mod builder;
mod connect;
mod console;
mod endpoint;
mod error;
#[cfg(feature = "otlp-grpc")]
mod grpc;
mod headers;
#[cfg(feature = "otlp-http")]
mod http_protobuf;
mod outage;
mod reader;
mod resource;
mod retry;
mod settings;
mod target;
mod telemetry;
#[cfg(feature = "otlp-tls")]
mod tls;
mod transport;
mod variables;
mod worker;

pub use builder::Builder;
pub use error::Error;
pub use target::Protocol;
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
