//! The settings of an exporter, from the builder's calls and the variables.

use std::fmt;
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::Temporality;

use crate::otlp::config::endpoint::Endpoint;
use crate::otlp::config::env::{Env, boolean, choose, milliseconds};
use crate::otlp::config::headers::Headers;
#[cfg(feature = "otlp-tls")]
use crate::otlp::config::identity::Identity;
use crate::otlp::config::options::{Options, Protocol};
use crate::otlp::config::proxy::Proxy;
use crate::otlp::config::resource::resource;
use crate::otlp::config::secrets::Secrets;
use crate::otlp::error::Error;

/// Everything that an exporting provider is made of.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) output: Output,
    pub(crate) times: Times,
    pub(crate) temporality: Temporality,
    pub(crate) resource: Resource,
}

/// The target of the metrics.
#[derive(Debug)]
pub(crate) enum Output {
    Otlp(Box<Target>),
    Console,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Times {
    pub(crate) interval: Duration,
    /// The limit of one export with all its attempts, and of a flush.
    pub(crate) timeout: Duration,
    pub(crate) shutdown_timeout: Duration,
}

/// The compression of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// The settings of a client.
pub(crate) struct Target {
    pub(crate) protocol: Protocol,
    pub(crate) endpoint: Endpoint,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) headers: Headers,
    pub(crate) compression: Compression,
    /// `None` without https.
    #[cfg(feature = "otlp-tls")]
    pub(crate) identity: Option<Identity>,
    /// The parts of all this that must not be printed.
    pub(crate) secrets: Secrets,
}

/// The defaults of the specification.
const INTERVAL: Duration = Duration::from_secs(60);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
const READER_TIMEOUT: Duration = Duration::from_secs(30);

/// A process that ends waits no longer for an endpoint that does not answer.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Stands for no limit, since clocks cannot count to everything.
pub(super) const MAX_TIME: Duration = Duration::from_secs(365 * 86_400);

#[derive(Clone, Copy, PartialEq)]
enum Exporter {
    Otlp,
    Console,
    None,
}

impl Settings {
    pub(crate) fn new(options: &Options, env: &Env<'_>) -> Result<Self, Error> {
        let is_disabled = env.parse("OTEL_SDK_DISABLED", boolean) == Some(true);
        let exporter = if is_disabled { Exporter::None } else { exporter(env) };
        if exporter == Exporter::None {
            // The other variables need not be right then.
            return Ok(Settings {
                output: Output::Nothing,
                times: Times {
                    interval: INTERVAL,
                    timeout: EXPORT_TIMEOUT,
                    shutdown_timeout: SHUTDOWN_TIMEOUT,
                },
                temporality: Temporality::Cumulative,
                resource: Resource::builder_empty().build(),
            });
        }
        let output = match exporter {
            Exporter::Otlp => Output::Otlp(Box::new(Target::new(options, env)?)),
            _ => Output::Console,
        };
        Ok(Settings {
            output,
            times: times(options, env)?,
            temporality: temporality(env),
            resource: resource(options, env),
        })
    }
}

/// Returns the first exporter of the list that this library has.
fn exporter(env: &Env<'_>) -> Exporter {
    const NAME: &str = "OTEL_METRICS_EXPORTER";
    let choices = [("otlp", Exporter::Otlp), ("console", Exporter::Console), ("none", Exporter::None)];
    let list = env.parse(NAME, |list| Ok(list.to_owned())).unwrap_or_default();
    let mut entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let count = entries.clone().count();
    let known = entries.find_map(|entry| choose(entry, &choices).ok());
    if count > 1 || count == 1 && known.is_none() {
        let used =
            choices.iter().find(|(_, exporter)| Some(*exporter) == known).map_or("otlp", |(name, _)| name);
        // Reads it again for the rules of showing a value.
        let _: Option<()> =
            env.parse(NAME, |_| Err(format!("it must be one of: otlp, console, none; {used} is used")));
    }
    known.unwrap_or(Exporter::Otlp)
}

fn times(options: &Options, env: &Env<'_>) -> Result<Times, Error> {
    let is_positive = |value: &str| match milliseconds(value)? {
        Duration::ZERO => Err("it must be greater than 0".into()),
        time => Ok(time),
    };
    let interval = match options.interval {
        Some(interval) => positive("interval", interval)?,
        None => env.parse("OTEL_METRIC_EXPORT_INTERVAL", is_positive).unwrap_or(INTERVAL),
    };
    let timeout = match options.timeout {
        Some(timeout) => positive("timeout", timeout)?,
        None => timeout(env),
    };
    let shutdown_timeout = match options.shutdown_timeout {
        Some(timeout) => positive("shutdown_timeout", timeout)?,
        None => SHUTDOWN_TIMEOUT.min(timeout),
    };
    Ok(Times {
        interval: interval.min(MAX_TIME),
        timeout: timeout.min(MAX_TIME),
        shutdown_timeout: shutdown_timeout.min(MAX_TIME),
    })
}

/// The shorter one of the exporter's and the reader's. Zero is no limit; then the reader has one only if it is set.
fn timeout(env: &Env<'_>) -> Duration {
    let unlimited = |time: Duration| if time.is_zero() { MAX_TIME } else { time };
    let exporter = env.parse_exporter("TIMEOUT", milliseconds).map_or(EXPORT_TIMEOUT, unlimited);
    let reader = env.parse("OTEL_METRIC_EXPORT_TIMEOUT", milliseconds).map(unlimited);
    let default = if exporter == MAX_TIME { MAX_TIME } else { READER_TIMEOUT };
    exporter.min(reader.unwrap_or(default))
}

pub(super) fn positive(name: &str, duration: Duration) -> Result<Duration, Error> {
    match duration.is_zero() {
        true => Err(Error::setting(name, "0", "it must be greater than 0")),
        false => Ok(duration),
    }
}

fn temporality(env: &Env<'_>) -> Temporality {
    let choices = [
        ("cumulative", Temporality::Cumulative),
        ("delta", Temporality::Delta),
        ("lowmemory", Temporality::LowMemory),
    ];
    env.parse("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", |value| choose(value, &choices))
        .unwrap_or(Temporality::Cumulative)
}

impl Target {
    pub(super) fn new(options: &Options, env: &Env<'_>) -> Result<Self, Error> {
        let protocol = protocol(options, env)?;
        let mut secrets = Secrets::default();
        let endpoint = Endpoint::new(protocol, options, env, &mut secrets)?;
        let proxy = match &endpoint.socket {
            Some(_) => None,
            None => Proxy::new(&endpoint.url, env, &mut secrets),
        };
        Ok(Target {
            #[cfg(feature = "otlp-tls")]
            identity: match endpoint.is_https() || proxy.as_ref().is_some_and(Proxy::is_https) {
                true => Some(Identity::new(env)?),
                false => None,
            },
            protocol,
            headers: Headers::new(options, env)?,
            compression: compression(env),
            endpoint,
            proxy,
            secrets,
        })
    }
}

/// Without the values of the headers.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("protocol", &self.protocol)
            .field("endpoint", &self.endpoint.name)
            .field("proxy", &self.proxy.as_ref().map(Proxy::name))
            .field("headers", &self.headers.len())
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

/// One that is not compiled is an error in code and ignored in the environment, which many services may share.
fn protocol(options: &Options, env: &Env<'_>) -> Result<Protocol, Error> {
    if let Some(protocol) = options.protocol {
        let name = PROTOCOLS.iter().find(|(_, known)| *known == protocol).map_or("", |(name, _)| name);
        return compiled(protocol).map_err(|problem| Error::setting("protocol", name, problem));
    }
    let protocol = env.parse_exporter("PROTOCOL", |value| compiled(choose(value, &PROTOCOLS)?));
    // The specification's default, where it is compiled.
    let default = if cfg!(feature = "otlp-http") { Protocol::HttpProtobuf } else { Protocol::Grpc };
    Ok(protocol.unwrap_or(default))
}

const PROTOCOLS: [(&str, Protocol); 3] =
    [("grpc", Protocol::Grpc), ("http/protobuf", Protocol::HttpProtobuf), ("http/json", Protocol::HttpJson)];

fn compiled(protocol: Protocol) -> Result<Protocol, String> {
    let feature = match protocol {
        Protocol::Grpc if !cfg!(feature = "otlp-grpc") => "otlp-grpc",
        Protocol::HttpProtobuf if !cfg!(feature = "otlp-http") => "otlp-http",
        Protocol::HttpJson if !cfg!(feature = "otlp-http-json") => "otlp-http-json",
        _ => return Ok(protocol),
    };
    Err(format!("it needs the Cargo feature `{feature}`"))
}

/// One that is not compiled is left out, since every collector takes metrics without it.
fn compression(env: &Env<'_>) -> Compression {
    let choices = [("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)];
    let compression = env.parse_exporter("COMPRESSION", |value| match choose(value, &choices)? {
        Compression::Gzip if !cfg!(feature = "otlp-gzip") => {
            Err("it needs the Cargo feature `otlp-gzip`".into())
        }
        Compression::Zstd if !cfg!(feature = "otlp-zstd") => {
            Err("it needs the Cargo feature `otlp-zstd`".into())
        }
        compression => Ok(compression),
    });
    compression.unwrap_or(Compression::None)
}
