//! What an application holds while it exports.

use opentelemetry::InstrumentationScope;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;

use crate::otlp::error::Error;
use crate::otlp::export::reader::Reader;

/// A meter provider that exports in the background. To be kept until the application ends: dropping it is a
/// [`shutdown`](Self::shutdown).
#[derive(Debug)]
#[must_use = "dropping it ends the export"]
pub struct Telemetry {
    provider: SdkMeterProvider,
    /// `None` where exporting is switched off.
    reader: Option<Reader>,
}

impl Telemetry {
    pub(in crate::otlp) fn new(provider: SdkMeterProvider, reader: Option<Reader>) -> Self {
        Telemetry { provider, reader }
    }

    /// A meter whose scope is this crate: its name, its version, and the schema of the semantic conventions that its
    /// metrics follow. To be given to [`init_runtime_metrics`](crate::init_runtime_metrics); metrics of the
    /// application's own belong to a meter of [`provider`](Self::provider) with a name of its own. With any other
    /// meter the same metrics are reported under that meter's scope.
    pub fn meter(&self) -> Meter {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url("https://opentelemetry.io/schemas/1.44.0")
            .build();
        self.provider.meter_with_scope(scope)
    }

    /// The provider, for instruments of the application's own.
    pub fn provider(&self) -> &SdkMeterProvider {
        &self.provider
    }

    /// Exports what there is, now, and waits until the receiver has it.
    ///
    /// # Errors
    /// Why it was not delivered. It takes no longer than the timeout of an export.
    pub fn force_flush(&self) -> Result<(), Error> {
        self.reader.as_ref().map_or(Ok(()), Reader::flush)
    }

    /// Exports for the last time, waits until the receiver has it, and ends the thread. Works from anywhere: inside
    /// any runtime, without one, in a panic. From the second call on it tells the first one's result.
    ///
    /// # Errors
    /// Why the last export was not delivered. It takes no longer than the timeout of an export.
    pub fn shutdown(&self) -> Result<(), Error> {
        // Tells the provider as well, which shuts the reader down; the reader knows the result in our words.
        let _ = self.provider.shutdown();
        self.reader.as_ref().map_or(Ok(()), Reader::shutdown)
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let already = self.reader.as_ref().is_none_or(Reader::has_ended);
        if let (false, Err(error)) = (already, self.shutdown()) {
            crate::util::log::warn("the last metrics were lost", &error.to_string());
        }
    }
}
