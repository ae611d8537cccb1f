//! From variables and calls of the builder to what is done.

use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::Temporality;

use crate::otlp::config::env::{Variable, Variables};
use crate::otlp::config::resource;
use crate::otlp::config::target::{self, Target};
use crate::otlp::error::Error;

/// What the builder was told. What it was not told is read from the environment.
#[derive(Debug, Default)]
pub(in crate::otlp) struct Options {
    pub(in crate::otlp) endpoint: Option<String>,
    pub(in crate::otlp) protocol: Option<target::Protocol>,
    pub(in crate::otlp) headers: Vec<(String, String)>,
    pub(in crate::otlp) interval: Option<Duration>,
    pub(in crate::otlp) timeout: Option<Duration>,
    pub(in crate::otlp) resource: Vec<opentelemetry::KeyValue>,
}

/// Everything that an exporting provider is made of.
#[derive(Debug)]
pub(in crate::otlp) struct Settings {
    pub(in crate::otlp) output: Output,
    pub(in crate::otlp) interval: Duration,
    /// What one export may take, with all its attempts; a flush and a shutdown likewise.
    pub(in crate::otlp) timeout: Duration,
    pub(in crate::otlp) temporality: Temporality,
    pub(in crate::otlp) resource: Resource,
}

#[derive(Debug)]
pub(in crate::otlp) enum Output {
    Otlp(Box<Target>),
    Console,
    Nothing,
}

impl Settings {
    pub(in crate::otlp) fn new(options: &Options, variables: &Variables<'_>) -> Result<Self, Error> {
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
                Exporter::Otlp => Output::Otlp(Box::new(Target::new(options, variables)?)),
                _ => Output::Console,
            },
            interval: interval(options, variables)?.min(LONGEST),
            timeout: timeout(options, variables)?.min(LONGEST),
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

/// More is the same as never, and clocks cannot count to everything.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::config::env::with;

    fn settings(set: &[(&str, &str)]) -> Result<Settings, String> {
        with(set, |variables| Settings::new(&Options::default(), variables))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_specification() {
        let settings = settings(&[]).unwrap();
        assert!(matches!(settings.output, Output::Otlp(_)));
        assert_eq!(settings.interval, Duration::from_secs(60));
        assert_eq!(settings.timeout, Duration::from_secs(10));
        assert_eq!(settings.temporality, Temporality::Cumulative);
    }

    #[test]
    fn the_exporter_is_chosen_or_none() {
        let output = |value| settings(&[("OTEL_METRICS_EXPORTER", value)]).map(|settings| settings.output);
        assert!(matches!(output("otlp"), Ok(Output::Otlp(_))));
        assert!(matches!(output("console"), Ok(Output::Console)));
        assert!(matches!(output("none"), Ok(Output::Nothing)));
        assert_eq!(
            output("prometheus").unwrap_err(),
            "OTEL_METRICS_EXPORTER=prometheus: it has to be one of: otlp, console, none"
        );
    }

    #[test]
    fn disabled_it_does_nothing_and_does_not_care_for_the_rest() {
        let nonsense = ("OTEL_EXPORTER_OTLP_PROTOCOL", "nonsense");
        let disabled = |value| settings(&[("OTEL_SDK_DISABLED", value), nonsense]);
        assert!(matches!(disabled("true").unwrap().output, Output::Nothing));
        assert!(matches!(disabled("True").unwrap().output, Output::Nothing));
        assert!(disabled("false").unwrap_err().starts_with("OTEL_EXPORTER_OTLP_PROTOCOL=nonsense: "));
        assert_eq!(disabled("1").unwrap_err(), "OTEL_SDK_DISABLED=1: it has to be one of: true, false");
        assert!(matches!(
            settings(&[("OTEL_METRICS_EXPORTER", "none"), nonsense]).unwrap().output,
            Output::Nothing
        ));
    }

    #[test]
    fn interval_and_timeouts_are_milliseconds() {
        let exporter = ("OTEL_EXPORTER_OTLP_TIMEOUT", "7000");
        let metrics = ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "6000");
        let reader = ("OTEL_METRIC_EXPORT_TIMEOUT", "5000");
        let timeout = |set: &[_]| settings(set).unwrap().timeout.as_millis();
        assert_eq!(timeout(&[exporter]), 7000);
        assert_eq!(timeout(&[exporter, metrics]), 6000);
        assert_eq!(timeout(&[exporter, metrics, reader]), 5000, "neither may be exceeded");
        assert_eq!(timeout(&[("OTEL_METRIC_EXPORT_TIMEOUT", "20000")]), 10_000, "neither may be exceeded");
        assert_eq!(settings(&[("OTEL_METRIC_EXPORT_INTERVAL", "250")]).unwrap().interval.as_millis(), 250);
    }

    #[test]
    fn a_time_that_is_no_number_above_0_is_an_error() {
        for name in [
            "OTEL_METRIC_EXPORT_INTERVAL",
            "OTEL_METRIC_EXPORT_TIMEOUT",
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
        ] {
            for value in ["0", "-1", "10s", "1.5", "99999999999999999999"] {
                let problem = "it has to be a whole number of milliseconds above 0";
                assert_eq!(settings(&[(name, value)]).unwrap_err(), format!("{name}={value}: {problem}"));
            }
        }
    }

    #[test]
    fn the_temporality_is_chosen() {
        let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        let temporality = |value| settings(&[(name, value)]).map(|settings| settings.temporality);
        assert_eq!(temporality("CUMULATIVE"), Ok(Temporality::Cumulative));
        assert_eq!(temporality("delta"), Ok(Temporality::Delta));
        assert_eq!(temporality("LowMemory"), Ok(Temporality::LowMemory));
        let error = format!("{name}=low: it has to be one of: cumulative, delta, lowmemory");
        assert_eq!(temporality("low"), Err(error));
    }

    #[test]
    fn code_goes_before_the_environment() {
        let set = [
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "nonsense"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
            ("OTEL_METRIC_EXPORT_TIMEOUT", "1"),
        ];
        let second = Duration::from_secs(1);
        let options = || Options {
            endpoint: Some("http://h:1".into()),
            interval: Some(second),
            timeout: Some(second),
            ..Options::default()
        };
        let settings = with(&set, |variables| Settings::new(&options(), variables)).unwrap();
        let Output::Otlp(target) = settings.output else { panic!("{:?}", settings.output) };
        assert_eq!(target.endpoint.authority().unwrap(), "h:1");
        assert_eq!((settings.interval, settings.timeout), (second, second));
        let forever = Options { interval: Some(Duration::MAX), timeout: Some(Duration::MAX), ..options() };
        let settings = with(&[], |variables| Settings::new(&forever, variables)).unwrap();
        assert_eq!((settings.interval, settings.timeout), (LONGEST, LONGEST));
        let zero = Options { interval: Some(Duration::ZERO), ..options() };
        let error = with(&[], |variables| Settings::new(&zero, variables)).unwrap_err();
        assert_eq!(error.to_string(), "interval=0: it has to be above 0");
    }
}
