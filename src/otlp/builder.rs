//! Settings in code rather than in the environment.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};

use crate::otlp::config::env::Env;
use crate::otlp::config::options::{HeaderSource, Options, Protocol};
#[cfg(feature = "otlp-profiles")]
use crate::otlp::config::profiles::Profiling;
use crate::otlp::config::settings::{Output, Settings};
use crate::otlp::error::Error;
#[cfg(feature = "otlp-profiles")]
use crate::otlp::export::profiles::{Plan, Profiles};
use crate::otlp::export::reader::Reader;
use crate::otlp::send::transport::Transport;
use crate::otlp::telemetry::Telemetry;
use crate::util::log;

/// Starts exporting as the standard variables say, and makes the provider the global one.
///
/// # Errors
/// Returns an error that names the variable if an endpoint, a header or a file of TLS cannot be used, and an error if the
/// operating system has no thread left.
pub fn install() -> Result<Telemetry, Error> {
    builder().install()
}

/// Returns a builder, for settings in code rather than in the environment.
pub fn builder() -> Builder {
    Builder::default()
}

/// The settings of an exporter in code. Each has precedence over its variable; the rest is read from the environment.
#[derive(Default)]
#[must_use = "nothing is exported before `install` or `build`"]
pub struct Builder {
    options: Options,
    views: Vec<View>,
}

type View = Arc<dyn Fn(&Instrument) -> Option<Stream> + Send + Sync>;

/// Shows no setting, since some are secrets.
impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

impl Builder {
    /// Sets the base URL of the collector, as `OTEL_EXPORTER_OTLP_ENDPOINT` does: over HTTP, `/v1/metrics` is appended.
    /// `unix:///path` is a Unix socket.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.options.endpoint = Some(endpoint.into());
        self
    }

    /// Sets the protocol, as `OTEL_EXPORTER_OTLP_PROTOCOL` does. The default is `http/protobuf` if it is compiled,
    /// else gRPC.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.options.protocol = Some(protocol);
        self
    }

    /// Adds a header to every request, such as an API key, beside those of `OTEL_EXPORTER_OTLP_HEADERS`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.headers.push((name.into(), HeaderSource::Fixed(value.into())));
        self
    }

    /// Adds a header whose value changes, such as a token that expires. The function is called on the exporting thread
    /// before each attempt; white space around its value is left out. While it panics or returns a value that a header
    /// cannot carry, exports fail.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let token = || std::fs::read_to_string("/var/run/secrets/token").unwrap_or_default();
    /// let telemetry = opentelemetry_instrumentation_runtime::otlp::builder()
    ///     .header_fn("authorization", move || format!("Bearer {}", token()))
    ///     .install()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn header_fn(
        mut self,
        name: impl Into<String>,
        value: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        self.options.headers.push((name.into(), HeaderSource::Function(Arc::new(value))));
        self
    }

    /// Sets the time from one export to the next, as `OTEL_METRIC_EXPORT_INTERVAL` does. The default is 60 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.options.interval = Some(interval);
        self
    }

    /// Sets how long one export may take with all its attempts, as `OTEL_EXPORTER_OTLP_TIMEOUT` does. The default is
    /// 10 s. A flush takes no longer either.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Sets how long a shutdown may take, including the last export. The default is 5 s, or the timeout of an export if
    /// that is shorter.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.options.shutdown_timeout = Some(timeout);
        self
    }

    /// Sets the time from one profile of memory and stalls to the next. The default is a minute. Zero turns all profiles
    /// off, those of CPU time included: a dependency may have turned the feature on.
    ///
    /// Profiles go with every n-th export, where n is chosen to come nearest to that time, and with the second export for
    /// the first time. [`Builder::heap_profile`](crate::Builder::heap_profile) starts the heap profile; without one, and
    /// without stalls, nothing is sent.
    #[cfg(feature = "otlp-profiles")]
    pub fn profile_every(mut self, interval: Duration) -> Self {
        self.options.profile_every = Some(interval);
        self
    }

    /// Exports CPU profiles too: samples 10 s of CPU time, or all of a shorter interval, once in each interval, beginning
    /// with its end. Off by default, because the threads of the process are interrupted 100 times for each second of CPU
    /// time meanwhile. [`profile::cpu`](crate::profile::cpu()) has the details.
    ///
    /// An interval of less than 1 s is an error. Where CPU time cannot be sampled, a warning says why, and the other
    /// profiles are exported nevertheless.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let five_minutes = Duration::from_secs(300);
    /// let telemetry = opentelemetry_instrumentation_runtime::otlp::builder()
    ///     .cpu_profile_every(five_minutes)
    ///     .install()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "otlp-profiles")]
    pub fn cpu_profile_every(mut self, interval: Duration) -> Self {
        self.options.cpu_profile_every = Some(interval);
        self
    }

    /// Adds attributes to the resource, beside those that are detected and those of the environment.
    pub fn resource(mut self, attributes: impl IntoIterator<Item = KeyValue>) -> Self {
        self.options.resource.extend(attributes);
        self
    }

    /// Adds a view to the provider.
    pub fn view(mut self, view: impl Fn(&Instrument) -> Option<Stream> + Send + Sync + 'static) -> Self {
        self.views.push(Arc::new(view));
        self
    }

    /// Starts exporting and makes the provider the global one.
    ///
    /// # Errors
    /// Returns an error that names the setting if an endpoint, a header or a file of TLS cannot be used, and an error if
    /// the operating system has no thread left. Any other variable that cannot be used is ignored with a warning.
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
        let read = |name: &str| env::var(name);
        let env = Env::new(&read);
        let settings = Settings::new(&self.options, &env)?;
        let Settings { output, times, temporality, resource } = settings;
        #[cfg(feature = "otlp-profiles")]
        let profiling = match output {
            Output::Otlp(_) => Profiling::new(&self.options, &env, times.interval)?,
            Output::Console | Output::Nothing => None,
        };
        for warning in env.into_warnings() {
            log::warn("a variable is ignored", &warning);
        }
        let transport = match output {
            Output::Otlp(target) => Some(Transport::otlp(*target, times.timeout)?),
            Output::Console => Some(Transport::Console),
            Output::Nothing => None,
        };
        #[cfg(feature = "otlp-profiles")]
        let profiles = match profiling {
            Some(Profiling { target, exports, cpu_interval }) => {
                let transport = Transport::otlp(*target, times.timeout)?;
                let plan = Plan { resource: resource.clone(), timeout: times.timeout, exports, cpu_interval };
                Some(Profiles::start(transport, plan)?)
            }
            None => None,
        };
        let reader = match transport {
            Some(transport) => Some(Reader::start(
                transport,
                times,
                temporality,
                #[cfg(feature = "otlp-profiles")]
                profiles,
            )?),
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
