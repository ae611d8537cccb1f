//! The headers of every request, an API key as a rule.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::otlp::config::env::{Env, QUOTED, pairs};
use crate::otlp::config::options::{HeaderSource, Options};
use crate::otlp::config::secrets::{HIDDEN, Secrets};
use crate::otlp::error::Error;

/// The headers with a fixed value, and the functions of the others.
pub(crate) struct Headers {
    fixed: HeaderMap,
    functions: Vec<(HeaderName, Arc<dyn Fn() -> String + Send + Sync>)>,
}

const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// The client sets these itself. With another value a request would be cut or answered without being read, or its answer
/// could not be read.
const FRAMING: [&str; 18] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-timeout",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

impl Headers {
    /// No error quotes anything of the variable or of a value.
    pub(crate) fn new(options: &Options, env: &Env<'_>) -> Result<Self, Error> {
        let mut fixed = HeaderMap::new();
        fixed.insert(http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if let Some(variable) = env.exporter("HEADERS")? {
            let hidden = |problem: String| Error::setting(&variable.name, HIDDEN, problem);
            if variable.is_quoted() {
                return Err(hidden(QUOTED.into()));
            }
            for (number, pair) in pairs(&variable.value) {
                let problem = |problem: &str| hidden(format!("entry {number} {problem}"));
                let (name, value) = pair.map_err(problem)?;
                let name = name_of(&name).map_err(|error| problem(&error))?;
                fixed.insert(name, value_of(&value).ok_or_else(|| problem(BAD_VALUE))?);
            }
        }
        let mut functions = Vec::new();
        for (index, (name, source)) in options.headers.iter().enumerate() {
            let call = match source {
                HeaderSource::Fixed(_) => "header",
                HeaderSource::Function(_) => "header_fn",
            };
            let problem =
                |problem: &str| Error::setting(call, HIDDEN, format!("header {} {problem}", index + 1));
            let name = name_of(name).map_err(|error| problem(&error))?;
            // The last call for a name counts.
            functions.retain(|(other, _)| *other != name);
            fixed.remove(&name);
            match source {
                HeaderSource::Fixed(value) => {
                    fixed.insert(name, value_of(value).ok_or_else(|| problem(BAD_VALUE))?);
                }
                HeaderSource::Function(function) => functions.push((name, Arc::clone(function))),
            }
        }
        Ok(Headers { fixed, functions })
    }

    /// The headers of one attempt. Their values become known to `secrets`.
    pub(crate) fn now(&self, secrets: &mut Secrets) -> Result<HeaderMap, String> {
        let mut headers = self.fixed.clone();
        for (name, function) in &self.functions {
            let value = catch_unwind(AssertUnwindSafe(|| function()))
                .map_err(|_| format!("the function of the header {name} panicked"))?;
            // A token in a file ends with a line break.
            let value = value_of(value.trim()).ok_or_else(|| {
                format!("the function of the header {name} returned a value that {BAD_VALUE_TAIL}")
            })?;
            headers.insert(name.clone(), value);
        }
        for value in headers.values().filter(|value| value.is_sensitive()) {
            secrets.add(&String::from_utf8_lossy(value.as_bytes()));
        }
        Ok(headers)
    }

    /// Returns their number. Their names may be parts of a value that was not encoded.
    pub(crate) fn len(&self) -> usize {
        self.fixed.len() + self.functions.len()
    }
}

const BAD_VALUE: &str = "has a value that a header cannot carry; percent-encode it";
const BAD_VALUE_TAIL: &str = "a header cannot carry";

fn name_of(name: &str) -> Result<HeaderName, String> {
    let name =
        HeaderName::from_str(name).map_err(|_| "has no valid header name before its first =".to_owned())?;
    match FRAMING.iter().find(|framing| name == **framing) {
        Some(framing) => Err(format!("sets {framing}, which only the exporter may set; remove it")),
        None => Ok(name),
    }
}

fn value_of(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::config::env::with;

    fn headers(set: &[(&str, &str)], options: &Options) -> Result<Vec<(String, String)>, String> {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let headers = with(set, |env| Headers::new(options, env)).map_err(|error| error.to_string())?;
        let now = headers.now(&mut Secrets::default())?;
        Ok(now.iter().map(|(name, value)| (name.to_string(), text(value))).collect())
    }

    fn fixed(name: &str, value: &str) -> Options {
        Options { headers: vec![(name.into(), HeaderSource::Fixed(value.into()))], ..Options::default() }
    }

    #[test]
    fn values_are_percent_decoded_and_metrics_go_before_all_signals() {
        let all = ("OTEL_EXPORTER_OTLP_HEADERS", "X-Tenant=a,other=1");
        let metrics = ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "authorization=Basic%20dXNlcg%3D%3D");
        let expect = |set: &[_], options: &Options, list: &[(&str, &str)]| {
            let mut found = headers(set, options).unwrap();
            found.sort();
            let mut expected: Vec<_> = [("user-agent", USER_AGENT)]
                .iter()
                .chain(list)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            expected.sort();
            assert_eq!(found, expected);
        };
        let none = Options::default();
        expect(&[all], &none, &[("x-tenant", "a"), ("other", "1")]);
        expect(&[all, metrics], &none, &[("authorization", "Basic dXNlcg==")]);
        expect(&[all], &fixed("x-tenant", "b"), &[("x-tenant", "b"), ("other", "1")]);
        let function = HeaderSource::Function(Arc::new(|| "c\n".to_owned()));
        let options = Options { headers: vec![("X-Tenant".into(), function)], ..Options::default() };
        expect(&[all], &options, &[("x-tenant", "c"), ("other", "1")]);
    }

    #[test]
    fn no_error_quotes_a_value() {
        let error =
            |value| headers(&[("OTEL_EXPORTER_OTLP_HEADERS", value)], &Options::default()).unwrap_err();
        let hidden = "OTEL_EXPORTER_OTLP_HEADERS=[hidden]: ";
        for (value, problem) in [
            ("a=1,s3cret", "entry 2 is not of the form key=value; write a comma inside a value as %2C"),
            (
                "Authorization: Basic c2VjcmV0",
                "entry 1 is not of the form key=value; write a comma inside a value as %2C",
            ),
            (
                "Authorization: Basic c2VjcmV0==",
                "entry 1 is not of the form key=value; write a comma inside a value as %2C",
            ),
            ("Authorization: Key c2=VjcmV0", "entry 1 has no valid header name before its first ="),
            (
                "api-key=s3cret,tail==",
                "entry 2 is not of the form key=value; write a comma inside a value as %2C",
            ),
            ("a b=s3cret", "entry 1 has no valid header name before its first ="),
            ("a=s3cret%0a", "entry 1 has a value that a header cannot carry; percent-encode it"),
            ("a=s3cret,b=%ff", "entry 2 is not UTF-8 after percent-decoding"),
            ("\"a=s3cret\"", "the value stands in quotes; remove them"),
            ("'a=s3cret'", "the value stands in quotes; remove them"),
        ] {
            assert_eq!(error(value), format!("{hidden}{problem}"));
        }
        let error = headers(&[], &fixed("s3cret value", "x-api-key")).unwrap_err();
        assert_eq!(error, "header=[hidden]: header 1 has no valid header name before its first =");
    }

    #[test]
    fn framing_is_refused_by_name() {
        for name in FRAMING {
            for written in [name.to_owned(), name.to_ascii_uppercase()] {
                let expected = format!("sets {name}, which only the exporter may set; remove it");
                let variable = format!("x-ok=1,{written}=0");
                let error =
                    headers(&[("OTEL_EXPORTER_OTLP_HEADERS", &variable)], &Options::default()).unwrap_err();
                assert!(error.ends_with(&format!("entry 2 {expected}")), "{error}");
                assert!(headers(&[], &fixed(&written, "0")).unwrap_err().ends_with(&expected));
            }
        }
    }

    #[test]
    fn a_function_that_panics_or_returns_nonsense_is_an_error_without_the_value() {
        let error = |function: fn() -> String| {
            let source = HeaderSource::Function(Arc::new(function));
            headers(&[], &Options { headers: vec![("x-token".into(), source)], ..Options::default() })
                .unwrap_err()
        };
        assert_eq!(error(|| panic!("s3cret")), "the function of the header x-token panicked");
        let expected = "the function of the header x-token returned a value that a header cannot carry";
        assert_eq!(error(|| "s3\0cret".into()), expected);
    }
}
