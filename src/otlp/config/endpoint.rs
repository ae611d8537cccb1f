//! The URL of the receiver.

use std::str::FromStr;

use http::Uri;
use http::uri::{PathAndQuery, Scheme};

use crate::otlp::config::env::{HIDDEN, Variable, Variables};
use crate::otlp::config::settings::Options;
use crate::otlp::config::target::Protocol;
use crate::otlp::error::Error;

/// With the path of metrics, where the protocol has one.
pub(in crate::otlp) fn endpoint(
    protocol: Protocol,
    options: &Options,
    variables: &Variables<'_>,
) -> Result<Uri, Error> {
    let general = |variable| (variable, true);
    let (given, is_base) = match &options.endpoint {
        Some(text) => general(Variable::new("endpoint", text)),
        None => match variables.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")? {
            Some(variable) => (variable, false),
            None => general(
                variables
                    .get("OTEL_EXPORTER_OTLP_ENDPOINT")?
                    .unwrap_or_else(|| Variable::new("endpoint", default_endpoint(protocol))),
            ),
        },
    };
    let text = match given.value.split_once("://") {
        Some((scheme, _)) if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
            given.value.clone()
        }
        Some(_) => return Err(bad_endpoint(&given, "only http:// and https:// are supported")),
        None => match protocol {
            Protocol::Grpc if insecure(variables)? => format!("http://{}", given.value),
            Protocol::Grpc => format!("https://{}", given.value),
            Protocol::HttpProtobuf => {
                return Err(bad_endpoint(&given, "it has to begin with http:// or https://"));
            }
        },
    };
    let uri =
        Uri::from_str(&text).map_err(|error| bad_endpoint(&given, &format!("it is no URL: {error}")))?;
    check(&given, &uri)?;
    let path = match (protocol, is_base) {
        (Protocol::HttpProtobuf, true) => format!("{}/v1/metrics", uri.path().trim_end_matches('/')),
        (Protocol::HttpProtobuf, false) => return Ok(uri),
        // The protocol has paths of its own, which a base path goes before.
        (Protocol::Grpc, _) => match uri.path().trim_end_matches('/') {
            "" => "/".to_owned(),
            path => path.to_owned(),
        },
    };
    let mut parts = uri.into_parts();
    parts.path_and_query = PathAndQuery::from_str(&path).ok();
    Uri::from_parts(parts).map_err(|error| bad_endpoint(&given, &error.to_string()))
}

fn default_endpoint(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "http://localhost:4317",
        Protocol::HttpProtobuf => "http://localhost:4318",
    }
}

fn check(given: &Variable, uri: &Uri) -> Result<(), Error> {
    let problem = match (uri.scheme(), uri.authority()) {
        (_, None) => "there is no host in it",
        (_, Some(authority)) if authority.as_str().contains('@') => {
            "credentials in an endpoint are not sent, set a header instead"
        }
        (_, Some(authority)) if authority.host().is_empty() => "there is no host in it",
        (_, Some(authority)) if authority.port_u16().is_none() && authority.as_str() != authority.host() => {
            "its port is no number up to 65535"
        }
        (Some(scheme), _) if *scheme == Scheme::HTTPS && !cfg!(feature = "otlp-tls") => {
            return Err(match given.value.contains("://") {
                true => bad_endpoint(given, "https needs the Cargo feature `otlp-tls`"),
                false => bad_endpoint(
                    given,
                    "without a scheme https is meant, which needs the Cargo feature `otlp-tls`; \
                     begin with http:// or set OTEL_EXPORTER_OTLP_INSECURE=true",
                ),
            });
        }
        _ => return Ok(()),
    };
    Err(bad_endpoint(given, problem))
}

/// Without credentials and query, which may be secrets.
fn bad_endpoint(given: &Variable, problem: &str) -> Error {
    let (scheme, rest) =
        given.value.split_once("://").map_or(("", given.value.as_str()), |(scheme, rest)| (scheme, rest));
    let rest = match rest.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}"),
        None => rest.to_owned(),
    };
    let rest = match rest.split_once('?') {
        Some((before, _)) => format!("{before}?{HIDDEN}"),
        None => rest,
    };
    let separator = if given.value.contains("://") { "://" } else { "" };
    Error::setting(&given.name, &format!("{scheme}{separator}{rest}"), problem)
}

fn insecure(variables: &Variables<'_>) -> Result<bool, Error> {
    variables.exporter("INSECURE")?.map_or(Ok(false), |variable| variable.boolean())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::config::env::with;

    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const METRICS: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";

    fn endpoint(protocol: Protocol, set: &[(&str, &str)]) -> Result<String, String> {
        let read = |variables: &Variables<'_>| super::endpoint(protocol, &Options::default(), variables);
        with(set, read).map(|uri| uri.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn http_appends_its_path_to_the_general_endpoint_alone() {
        let http = |set: &[(&str, &str)]| endpoint(Protocol::HttpProtobuf, set).unwrap();
        assert_eq!(http(&[]), "http://localhost:4318/v1/metrics");
        assert_eq!(http(&[(ALL, "http://h:1")]), "http://h:1/v1/metrics");
        assert_eq!(http(&[(ALL, "http://h:1/")]), "http://h:1/v1/metrics");
        assert_eq!(http(&[(ALL, "http://h/otlp/base/")]), "http://h/otlp/base/v1/metrics");
        assert_eq!(http(&[(METRICS, "http://h:1")]), "http://h:1/");
        assert_eq!(http(&[(METRICS, "http://h:1/in?tenant=1")]), "http://h:1/in?tenant=1");
        assert_eq!(http(&[(ALL, "http://a"), (METRICS, "http://b/in")]), "http://b/in");
        assert_eq!(http(&[(ALL, "http://[::1]:1")]), "http://[::1]:1/v1/metrics");
        assert_eq!(http(&[(ALL, " ")]), "http://localhost:4318/v1/metrics", "an empty one is not set");
    }

    #[test]
    fn grpc_keeps_the_base_path() {
        let grpc = |set: &[(&str, &str)]| endpoint(Protocol::Grpc, set).unwrap();
        assert_eq!(grpc(&[]), "http://localhost:4317/");
        assert_eq!(grpc(&[(ALL, "http://h:1/")]), "http://h:1/");
        assert_eq!(grpc(&[(METRICS, "http://h:1/base/")]), "http://h:1/base");
    }

    #[test]
    fn without_a_scheme_insecure_decides() {
        let schemeless = |set: &[(&str, &str)]| {
            let set = [&[(ALL, "h:1")], set].concat();
            endpoint(Protocol::Grpc, &set)
        };
        assert_eq!(schemeless(&[("OTEL_EXPORTER_OTLP_INSECURE", "true")]).unwrap(), "http://h:1/");
        assert_eq!(schemeless(&[("OTEL_EXPORTER_OTLP_METRICS_INSECURE", "TRUE")]).unwrap(), "http://h:1/");
        for secure in [&[][..], &[("OTEL_EXPORTER_OTLP_INSECURE", "false")]] {
            match cfg!(feature = "otlp-tls") {
                true => assert_eq!(schemeless(secure).unwrap(), "https://h:1/"),
                false => assert_eq!(
                    schemeless(secure).unwrap_err(),
                    "OTEL_EXPORTER_OTLP_ENDPOINT=h:1: without a scheme https is meant, which needs the Cargo feature \
                     `otlp-tls`; begin with http:// or set OTEL_EXPORTER_OTLP_INSECURE=true"
                ),
            }
        }
        let error = schemeless(&[("OTEL_EXPORTER_OTLP_INSECURE", "yes")]).unwrap_err();
        assert_eq!(error, "OTEL_EXPORTER_OTLP_INSECURE=yes: it has to be one of: true, false");
        // A scheme goes before it.
        let set = [(ALL, "http://h:1"), ("OTEL_EXPORTER_OTLP_INSECURE", "false")];
        assert_eq!(endpoint(Protocol::Grpc, &set).unwrap(), "http://h:1/");
    }

    #[test]
    fn what_cannot_be_an_endpoint_is_an_error() {
        let error = |value| endpoint(Protocol::HttpProtobuf, &[(ALL, value)]).unwrap_err();
        for (value, problem) in [
            ("h:4318", "it has to begin with http:// or https://"),
            ("ftp://h", "only http:// and https:// are supported"),
            ("unix:///tmp/socket", "only http:// and https:// are supported"),
            ("http://", "it is no URL"),
            ("http://h:port", "its port is no number"),
            ("http://h:65536", "its port is no number"),
            ("http://a b", "it is no URL"),
            ("http://:4318", "there is no host in it"),
        ] {
            let error = error(value);
            assert!(error.starts_with(&format!("{ALL}={value}: {problem}")), "{error}");
        }
        if !cfg!(feature = "otlp-tls") {
            assert!(error("https://h").ends_with("https needs the Cargo feature `otlp-tls`"));
        }
    }

    #[test]
    fn no_error_tells_credentials() {
        let error = |value| endpoint(Protocol::HttpProtobuf, &[(METRICS, value)]).unwrap_err();
        assert_eq!(
            error("http://user:s3cret@h/in?token=s3cret"),
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://[hidden]@h/in?[hidden]: \
             credentials in an endpoint are not sent, set a header instead"
        );
        assert!(!error("user:s3cret@h?token=s3cret").contains("s3cret"));
    }
}
