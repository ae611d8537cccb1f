//! What every request carries, as a rule an API key.

use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::otlp::config::env::{HIDDEN, Variables};
use crate::otlp::config::settings::Options;
use crate::otlp::error::Error;

/// No error tells a value.
pub(in crate::otlp) fn headers(options: &Options, variables: &Variables<'_>) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    if let Some(variable) = variables.exporter("HEADERS")? {
        let hidden = |problem: String| Error::setting(&variable.name, HIDDEN, problem);
        for (name, value) in variable.pairs().map_err(hidden)? {
            insert(&mut headers, &name, &value).map_err(hidden)?;
        }
    }
    for (name, value) in &options.headers {
        insert(&mut headers, name, value).map_err(|problem| Error::setting("header", HIDDEN, problem))?;
    }
    Ok(headers)
}

const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    let key = HeaderName::from_str(name).map_err(|_| format!("{name:?} is not the name of a header"))?;
    let mut value = HeaderValue::from_str(value).map_err(|_| format!("the value of {name} is not valid"))?;
    value.set_sensitive(true);
    headers.insert(key, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::config::env::with;

    fn headers(set: &[(&str, &str)], options: &Options) -> Result<Vec<(String, String)>, String> {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        with(set, |variables| super::headers(options, variables))
            .map(|headers| headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_percent_decoded_and_metrics_go_before_all_signals() {
        let all = ("OTEL_EXPORTER_OTLP_HEADERS", "X-Tenant=a,other=1");
        let metrics = ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "authorization=Basic%20dXNlcg%3D%3D");
        let expected = |list: &[(&str, &str)]| {
            let agent = [("user-agent", USER_AGENT)];
            let all = agent.iter().chain(list).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Ok(all.collect::<Vec<_>>())
        };
        let none = Options::default();
        assert_eq!(headers(&[all], &none), expected(&[("x-tenant", "a"), ("other", "1")]));
        assert_eq!(headers(&[all, metrics], &none), expected(&[("authorization", "Basic dXNlcg==")]));
        let options = Options { headers: vec![("x-tenant".into(), "b".into())], ..Options::default() };
        assert_eq!(headers(&[all], &options), expected(&[("x-tenant", "b"), ("other", "1")]));
    }

    #[test]
    fn no_error_tells_a_value() {
        let error =
            |value| headers(&[("OTEL_EXPORTER_OTLP_HEADERS", value)], &Options::default()).unwrap_err();
        let hidden = "OTEL_EXPORTER_OTLP_HEADERS=[hidden]: ";
        assert_eq!(error("a=1,s3cret"), format!("{hidden}entry 2 is not of the form key=value"));
        assert_eq!(error("a b=s3cret"), format!("{hidden}\"a b\" is not the name of a header"));
        assert_eq!(error("a=s3cret%0a"), format!("{hidden}the value of a is not valid"));
    }
}
