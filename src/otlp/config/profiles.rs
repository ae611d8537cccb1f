//! The settings of the export of profiles.

use std::time::Duration;

use crate::otlp::config::env::Env;
use crate::otlp::config::options::Options;
use crate::otlp::config::settings::{MAX_TIME, Target, positive};
use crate::otlp::error::Error;
use crate::util::log;

/// The target and the rhythm of profiles.
#[derive(Debug)]
pub(crate) struct Profiling {
    pub(crate) target: Box<Target>,
    /// The number of exports from one heap profile to the next.
    pub(crate) exports: u64,
    /// The time from the start of one CPU profile to that of the next. `None` without CPU profiles.
    pub(crate) cpu_interval: Option<Duration>,
}

/// The time from one heap profile to the next, as near as exports come to it.
const INTERVAL: Duration = Duration::from_secs(60);

/// Profiles shorter than this would be all beginning and end.
const MIN_CPU_INTERVAL: Duration = Duration::from_secs(1);

impl Profiling {
    /// Returns `None` if profiles are turned off and, after a warning, if the endpoint of metrics does not tell theirs.
    pub(crate) fn new(options: &Options, env: &Env<'_>, interval: Duration) -> Result<Option<Self>, Error> {
        if options.profile_every.is_some_and(|time| time.is_zero()) {
            return Ok(None);
        }
        let every = options.profile_every.map(|time| positive("profile_every", time)).transpose()?;
        let cpu = options.cpu_profile_every;
        if cpu.is_some_and(|time| time < MIN_CPU_INTERVAL) {
            return Err(Error::setting("cpu_profile_every", "less than a second", "it must be at least 1 s"));
        }
        // The metrics have read the same variables, and have warned of them.
        let mut target = Target::new(options, &env.with_own_warnings())?;
        let Some(endpoint) = target.endpoint.of_profiles(target.protocol) else {
            let about = "the path of OTEL_EXPORTER_OTLP_METRICS_ENDPOINT does not end with /v1/metrics, so that the \
                         place of profiles is not known";
            log::warn("profiles are not exported", about);
            return Ok(None);
        };
        target.endpoint = endpoint;
        Ok(Some(Profiling {
            target: Box::new(target),
            exports: exports(every.unwrap_or(INTERVAL), interval),
            cpu_interval: cpu.map(|time| time.min(MAX_TIME)),
        }))
    }
}

/// Returns the number of intervals that is nearest to a time, at least one.
fn exports(time: Duration, interval: Duration) -> u64 {
    let interval = interval.as_nanos().max(1);
    u64::try_from((time.as_nanos() + interval / 2) / interval).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::config::env::with;

    const SECOND: Duration = Duration::from_secs(1);

    fn profiling(options: &Options, interval: Duration) -> Result<Option<Profiling>, String> {
        with(&[], |env| Profiling::new(options, env, interval)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_heap_profile_goes_with_about_one_export_a_minute() {
        let exports = |interval: Duration| profiling(&Options::default(), interval).unwrap().unwrap().exports;
        for (seconds, expected) in [(1, 60), (5, 12), (25, 2), (60, 1), (90, 1), (3600, 1)] {
            assert_eq!(exports(SECOND * seconds), expected, "{seconds} s");
        }
        assert_eq!(exports(MAX_TIME), 1);
        let options = Options { profile_every: Some(SECOND * 10), ..Options::default() };
        assert_eq!(profiling(&options, SECOND).unwrap().unwrap().exports, 10);
    }

    #[test]
    fn cpu_profiles_are_taken_on_request_alone() {
        assert_eq!(profiling(&Options::default(), SECOND).unwrap().unwrap().cpu_interval, None);
        let options = |time| Options { cpu_profile_every: Some(time), ..Options::default() };
        assert_eq!(profiling(&options(SECOND), SECOND).unwrap().unwrap().cpu_interval, Some(SECOND));
        assert_eq!(profiling(&options(Duration::MAX), SECOND).unwrap().unwrap().cpu_interval, Some(MAX_TIME));
        let error = profiling(&options(Duration::ZERO), SECOND).unwrap_err();
        assert_eq!(error, "cpu_profile_every=less than a second: it must be at least 1 s");
    }

    #[test]
    fn zero_turns_all_profiles_off() {
        let options = Options {
            profile_every: Some(Duration::ZERO),
            cpu_profile_every: Some(SECOND),
            ..Options::default()
        };
        assert!(profiling(&options, SECOND).unwrap().is_none());
    }

    #[test]
    fn without_a_place_for_profiles_there_are_none() {
        let set = [
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://h/in"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ];
        let profiling = with(&set, |env| Profiling::new(&Options::default(), env, SECOND)).unwrap();
        assert_eq!(profiling.is_none(), cfg!(feature = "otlp-http"));
    }
}
