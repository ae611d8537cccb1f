//! From variables and calls of the builder to what is done.

use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::Temporality;

use super::error::Error;
use super::resource;
use super::target::{self, Target};
use super::variables::{Variable, Variables};

/// What the builder was told. What it was not told is read from the environment.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) endpoint: Option<String>,
    pub(super) protocol: Option<target::Protocol>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) resource: Vec<opentelemetry::KeyValue>,
}

/// Everything that an exporting provider is made of.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) output: Output,
    pub(super) interval: Duration,
    /// What one export may take, with all its attempts; a flush and a shutdown likewise.
    pub(super) timeout: Duration,
    pub(super) temporality: Temporality,
    pub(super) resource: Resource,
}

#[derive(Debug)]
pub(super) enum Output {
    Otlp(Target),
    Console,
    Nothing,
}

impl Settings {
    pub(super) fn new(options: &Options, variables: &Variables<'_>) -> Result<Self, Error> {
        let disabled = match variables.get("OTEL_SDK_DISABLED")? {
            Some(variable) => variable.boolean()?,
            None => false,
        };
        let exporter = match variables.get("OTEL_METRICS_EXPORTER")? {
            _ if disabled => Exporter::None,
            Some(variable) => variable.choose(&[
                ("otlp", Exporter::Otlp),
                ("console", Exporter::Console),
                ("none", Exporter::None),
            ])?,
            None => Exporter::Otlp,
        };
        if let Exporter::None = exporter {
            // Whoever has switched it off need not have the rest right.
            return Ok(Settings {
                output: Output::Nothing,
                interval: INTERVAL,
                timeout: EXPORT_TIMEOUT,
                temporality: Temporality::Cumulative,
                resource: Resource::builder_empty().build(),
            });
        }
        Ok(Settings {
            output: match exporter {
                Exporter::Otlp => Output::Otlp(Target::new(options, variables)?),
                _ => Output::Console,
            },
            interval: interval(options, variables)?,
            timeout: timeout(options, variables)?,
            temporality: temporality(variables)?,
            resource: resource::resource(options, variables)?,
        })
    }
}

#[derive(Clone, Copy)]
enum Exporter {
    Otlp,
    Console,
    None,
}

/// The defaults of the specification.
const INTERVAL: Duration = Duration::from_secs(60);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
const READER_TIMEOUT: Duration = Duration::from_secs(30);

fn interval(options: &Options, variables: &Variables<'_>) -> Result<Duration, Error> {
    match (options.interval, variables.get("OTEL_METRIC_EXPORT_INTERVAL")?) {
        (Some(interval), _) => positive("interval", interval),
        (None, Some(variable)) => variable.milliseconds(),
        (None, None) => Ok(INTERVAL),
    }
}

/// There are two timeouts, that of the exporter and that of the reader, and neither may be exceeded.
fn timeout(options: &Options, variables: &Variables<'_>) -> Result<Duration, Error> {
    if let Some(timeout) = options.timeout {
        return positive("timeout", timeout);
    }
    let or = |variable: Option<Variable>, default| variable.map_or(Ok(default), |set| set.milliseconds());
    let exporter = or(variables.exporter("TIMEOUT")?, EXPORT_TIMEOUT)?;
    let reader = or(variables.get("OTEL_METRIC_EXPORT_TIMEOUT")?, READER_TIMEOUT)?;
    Ok(exporter.min(reader))
}

fn positive(name: &str, duration: Duration) -> Result<Duration, Error> {
    match duration.is_zero() {
        true => Err(Error::setting(name, "0", "it has to be above 0")),
        false => Ok(duration),
    }
}

fn temporality(variables: &Variables<'_>) -> Result<Temporality, Error> {
    match variables.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE")? {
        None => Ok(Temporality::Cumulative),
        Some(variable) => variable.choose(&[
            ("cumulative", Temporality::Cumulative),
            ("delta", Temporality::Delta),
            ("lowmemory", Temporality::LowMemory),
        ]),
    }
}
