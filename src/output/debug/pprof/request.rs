//! The parameters of a request for a profile.

use std::time::Duration;

use axum::http::Uri;

const MAX_SECONDS: u64 = 300;
/// The default duration of a CPU profile, as in Go.
pub(super) const DEFAULT_CPU: Duration = Duration::from_secs(30);
/// The time limit for the look-up of names and the answer.
const ANSWER_TIME: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) seconds: Option<Duration>,
    pub(super) form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    Pprof,
    Text,
}

impl Request {
    /// Reads `seconds` and `debug`. As in Go, the first of several counts, others are ignored, and a `debug` that is no
    /// number is 0.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let seconds = value(query, "seconds").map(|text| {
            let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let seconds = digits.and_then(|digits| digits.parse().ok());
            seconds
                .filter(|seconds| (1..=MAX_SECONDS).contains(seconds))
                .map(Duration::from_secs)
                .ok_or_else(|| format!("`seconds` must be a number from 1 to {MAX_SECONDS}"))
        });
        let debug = value(query, "debug").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let form = if debug == 0 { Form::Pprof } else { Form::Text };
        Ok(Request { seconds: seconds.transpose()?, form })
    }
}

/// Returns the first value of a parameter. It is empty if the parameter has none.
pub(super) fn value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| match pair.split_once('=') {
        Some((found, value)) => (found == key).then_some(value),
        None => (pair == key).then_some(""),
    })
}

/// Returns how long the answer to a request may take, if that is longer than for other requests.
pub(crate) fn time_limit(uri: &Uri) -> Option<Duration> {
    let folders = ["/debug/pprof/", "/debug/runtime/flame/"];
    let endpoint = folders.iter().find_map(|folder| uri.path().strip_prefix(folder))?;
    let request = Request::parse(uri.query().unwrap_or_default()).ok()?;
    let default = if endpoint == "profile" { DEFAULT_CPU } else { Duration::ZERO };
    Some(request.seconds.unwrap_or(default) + ANSWER_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_a_number_from_1_to_300() {
        let seconds =
            |query: &str| Request::parse(query).map(|request| request.seconds.map(|time| time.as_secs()));
        assert_eq!(seconds(""), Ok(None));
        assert_eq!(seconds("seconds=1"), Ok(Some(1)));
        assert_eq!(seconds("debug=1&seconds=300&seconds=0"), Ok(Some(300)));
        let wrong =
            ["", "0", "301", "-1", "+1", "1.5", "1s", " 1", "ten", "99999999999999999999", "%31", "1;2"];
        for wrong in wrong {
            assert!(seconds(&format!("seconds={wrong}")).is_err(), "{wrong:?}");
        }
        assert!(seconds("seconds").is_err());
    }

    #[test]
    fn any_other_debug_than_zero_is_text() {
        let form = |query: &str| Request::parse(query).map(|request| request.form);
        for query in ["", "debug", "debug=0", "debug=x", "other=1", "debug=-1"] {
            assert_eq!(form(query), Ok(Form::Pprof), "{query}");
        }
        assert_eq!(form("debug=1"), Ok(Form::Text));
        assert_eq!(form("seconds=1&debug=2"), Ok(Form::Text));
    }

    #[test]
    fn only_profiles_may_take_long() {
        let seconds = |uri: &'static str| time_limit(&Uri::from_static(uri)).map(|time| time.as_secs());
        assert_eq!(seconds("/debug/vars?seconds=300"), None);
        assert_eq!(seconds("/debug/pprof/heap?seconds=301"), None);
        assert_eq!(seconds("/debug/pprof/heap"), Some(120));
        assert_eq!(seconds("/debug/pprof/heap?seconds=300"), Some(420));
        assert_eq!(seconds("/debug/pprof/profile"), Some(150));
        assert_eq!(seconds("/debug/runtime/flame/profile?seconds=10"), Some(130));
        assert_eq!(seconds("/debug/runtime/plots?seconds=10"), None);
    }
}
