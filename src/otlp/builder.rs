//! What can be set in code rather than in the environment.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};

use crate::otlp::config::env::Variables;
use crate::otlp::config::settings::{Options, Output, Settings};
use crate::otlp::config::target::Protocol;
use crate::otlp::error::Error;
use crate::otlp::export::reader::Reader;
use crate::otlp::send::Transport;
use crate::otlp::telemetry::Telemetry;

/// Settings in code. Each goes before its variable; what is not set here is read from the environment.
#[derive(Default)]
#[must_use = "nothing is exported before `install` or `build`"]
pub struct Builder {
    options: Options,
    views: Vec<View>,
}

type View = Arc<dyn Fn(&Instrument) -> Option<Stream> + Send + Sync>;

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

impl Builder {
    /// The base URL of the receiver, as in `OTEL_EXPORTER_OTLP_ENDPOINT`: with HTTP, `/v1/metrics` is appended.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.options.endpoint = Some(endpoint.into());
        self
    }

    /// How OTLP is spoken, as in `OTEL_EXPORTER_OTLP_PROTOCOL`. By default HTTP where it is compiled, else gRPC.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.options.protocol = Some(protocol);
        self
    }

    /// A header of every request, such as an API key, beside those of `OTEL_EXPORTER_OTLP_HEADERS`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.headers.push((name.into(), value.into()));
        self
    }

    /// The time from one export to the next, as in `OTEL_METRIC_EXPORT_INTERVAL`: 60 s by default.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.options.interval = Some(interval);
        self
    }

    /// What one export may take with all its attempts, as in `OTEL_EXPORTER_OTLP_TIMEOUT`: 10 s by default. A flush
    /// and a shutdown take no longer either.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Attributes of the resource, beside those that are found out and those of the environment.
    pub fn resource(mut self, attributes: impl IntoIterator<Item = KeyValue>) -> Self {
        self.options.resource.extend(attributes);
        self
    }

    /// One more view of the provider.
    pub fn view(mut self, view: impl Fn(&Instrument) -> Option<Stream> + Send + Sync + 'static) -> Self {
        self.views.push(Arc::new(view));
        self
    }

    /// Starts exporting and makes the provider the global one.
    ///
    /// # Errors
    /// A setting that cannot be used, or no thread to be had.
    pub fn install(self) -> Result<Telemetry, Error> {
        let telemetry = self.build()?;
        global::set_meter_provider(telemetry.provider().clone());
        Ok(telemetry)
    }

    /// Starts exporting and leaves the global provider alone.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn build(self) -> Result<Telemetry, Error> {
        let settings = Settings::new(&self.options, &Variables(&|name| env::var(name)))?;
        let Settings { output, interval, timeout, temporality, resource } = settings;
        let transport = match output {
            Output::Otlp(target) => Some(Transport::otlp(*target, timeout)?),
            Output::Console => Some(Transport::console()),
            Output::Nothing => None,
        };
        let reader = match transport {
            Some(transport) => Some(Reader::start(transport, interval, timeout, temporality)?),
            None => None,
        };
        let mut provider =
            SdkMeterProvider::builder().with_resource(resource).with_view(crate::output::otel::view);
        for view in self.views {
            provider = provider.with_view(move |instrument: &Instrument| view(instrument));
        }
        if let Some(reader) = &reader {
            provider = provider.with_reader(reader.clone());
        }
        Ok(Telemetry::new(provider.build(), reader))
    }
}
