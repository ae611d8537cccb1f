//! The handle that an application holds while it exports.

use opentelemetry::InstrumentationScope;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;

use crate::otlp::error::Error;
use crate::otlp::export::reader::Reader;

/// A meter provider that exports in the background. Keep it until the application ends: dropping it is a
/// [`shutdown`](Self::shutdown).
#[derive(Debug)]
#[must_use = "dropping it ends the export"]
pub struct Telemetry {
    provider: SdkMeterProvider,
    /// `None` if exporting is turned off.
    reader: Option<Reader>,
}

impl Telemetry {
    pub(crate) fn new(provider: SdkMeterProvider, reader: Option<Reader>) -> Self {
        Telemetry { provider, reader }
    }

    /// Returns a meter whose scope is this crate: its name, its version, and the schema of the semantic conventions that
    /// its metrics follow. Give it to [`init_runtime_metrics`](crate::init_runtime_metrics). Metrics of the application
    /// belong to a meter of [`provider`](Self::provider) with another name. Any other meter reports the same metrics
    /// under its own scope.
    pub fn meter(&self) -> Meter {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url("https://opentelemetry.io/schemas/1.44.0")
            .build();
        self.provider.meter_with_scope(scope)
    }

    /// Returns the provider, for the instruments of the application.
    pub fn provider(&self) -> &SdkMeterProvider {
        &self.provider
    }

    /// Exports now, and waits until the endpoint has accepted it.
    ///
    /// # Errors
    /// Returns the reason why it was not delivered. A flush takes no longer than the timeout of an export.
    pub fn force_flush(&self) -> Result<(), Error> {
        self.reader.as_ref().map_or(Ok(()), Reader::flush)
    }

    /// Exports for the last time, waits until the endpoint has accepted it, and ends the thread. It works anywhere: inside
    /// a runtime, without one, and while a panic unwinds. Further calls return the result of the first one.
    ///
    /// A shutdown takes no longer than [`shutdown_timeout`](super::Builder::shutdown_timeout), by default 5 s. If there was never a
    /// connection to the endpoint, there is one attempt, which waits for a connection for 1 s at most, and for TLS over it as
    /// long again.
    ///
    /// # Errors
    /// Returns the reason why the last export was not delivered.
    pub fn shutdown(&self) -> Result<(), Error> {
        // Ends the provider as well, which shuts the reader down. The reader keeps the error itself, not the SDK's text of it.
        let _ = self.provider.shutdown();
        self.reader.as_ref().map_or(Ok(()), Reader::shutdown)
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let Some(reader) = self.reader.as_ref().filter(|reader| !reader.has_ended()) else { return };
        let result = self.shutdown();
        // The exporting thread logs every loss that it knows of, with the number of all.
        if let Err(error) = result
            && !reader.has_answered()
        {
            crate::util::log::warn("the last metrics were lost", &error.to_string());
        }
    }
}
