//! The URL that metrics are sent to.

use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;
use http::uri::{PathAndQuery, Scheme};

use crate::otlp::config::env::{Env, QUOTED, Variable, boolean};
use crate::otlp::config::options::{Options, Protocol};
use crate::otlp::config::secrets::{HIDDEN, Secrets};
use crate::otlp::config::shown::{is_no_host, secrets_of_url, shown_url};
use crate::otlp::error::Error;

/// The target of requests.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// The URL of a request, with the path of metrics if the protocol has one.
    pub(crate) url: Uri,
    /// The Unix socket that is connected to, instead of the host.
    pub(crate) socket: Option<PathBuf>,
    /// The name in messages, without secrets.
    pub(crate) name: String,
}

/// The paths that a base URL gets appended.
const SIGNAL_PATHS: [&str; 3] = ["/v1/metrics", "/v1/traces", "/v1/logs"];

/// The path of profiles, in place of that of metrics.
#[cfg(feature = "otlp-profiles")]
pub(crate) const PROFILES_PATH: &str = "/v1development/profiles";

impl Endpoint {
    /// Adds its secret parts to `secrets`.
    pub(crate) fn new(
        protocol: Protocol,
        options: &Options,
        env: &Env<'_>,
        secrets: &mut Secrets,
    ) -> Result<Self, Error> {
        let (given, is_base) = match &options.endpoint {
            Some(text) => (Variable::new("endpoint", text.trim()), true),
            None => match env.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")? {
                Some(variable) => (variable, false),
                None => {
                    let variable = env.get("OTEL_EXPORTER_OTLP_ENDPOINT")?;
                    (variable.unwrap_or_else(|| Variable::new("endpoint", default_endpoint(protocol))), true)
                }
            },
        };
        secrets_of_url(&given.value, secrets);
        if given.is_quoted() {
            return Err(invalid(&given, QUOTED));
        }
        if let Some(socket) = socket(&given)? {
            let path = if protocol == Protocol::Grpc { "/" } else { "/v1/metrics" };
            let url = Uri::from_str(&format!("http://localhost{path}"));
            let url = url.map_err(|error| invalid(&given, &error.to_string()))?;
            return Ok(Endpoint { url, socket: Some(socket), name: shown_url(&given.value) });
        }
        let url = url(&given, is_base, protocol, env)?;
        // Without a scheme, even the host may be a secret that got into the wrong variable.
        let name = match shown_url(&given.value).as_str() {
            HIDDEN => HIDDEN.to_owned(),
            _ => shown_url(&url.to_string()),
        };
        Ok(Endpoint { name, url, socket: None })
    }

    /// Returns the endpoint of profiles at the same server. `None` if the path is not the usual one of metrics.
    #[cfg(feature = "otlp-profiles")]
    pub(crate) fn of_profiles(&self, protocol: Protocol) -> Option<Self> {
        if protocol == Protocol::Grpc {
            // The protocol has a path for each service.
            return Some(self.clone());
        }
        let base = self.url.path().trim_end_matches('/').strip_suffix("/v1/metrics")?;
        let query = self.url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut parts = self.url.clone().into_parts();
        parts.path_and_query = PathAndQuery::from_str(&format!("{base}{PROFILES_PATH}{query}")).ok();
        let url = Uri::from_parts(parts).ok()?;
        let name = if self.socket.is_some() { self.name.clone() } else { shown_url(&url.to_string()) };
        Some(Endpoint { url, socket: self.socket.clone(), name })
    }

    pub(crate) fn is_https(&self) -> bool {
        self.url.scheme() == Some(&Scheme::HTTPS)
    }
}

/// The path of `unix:///path` or, as gRPC also writes it, `unix:/path`.
fn socket(given: &Variable) -> Result<Option<PathBuf>, Error> {
    let Some(path) = given.value.strip_prefix("unix:") else { return Ok(None) };
    let path = path.strip_prefix("//").unwrap_or(path);
    match path.starts_with('/') {
        _ if !cfg!(unix) => Err(invalid(given, "this system has no Unix sockets")),
        true => Ok(Some(path.into())),
        false => Err(invalid(given, "the path of the socket must be absolute, as in unix:///run/otel.sock")),
    }
}

fn url(given: &Variable, is_base: bool, protocol: Protocol, env: &Env<'_>) -> Result<Uri, Error> {
    let is_grpc = protocol == Protocol::Grpc;
    let text = match given.value.split_once("://") {
        Some((scheme, _)) if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
            given.value.clone()
        }
        Some(_) => return Err(invalid(given, "it must begin with http://, https:// or unix://")),
        None if is_grpc && is_no_host(&given.value) => {
            return Err(invalid(given, "it must be a URL, as in http://localhost:4317"));
        }
        None if is_grpc => match env.parse_exporter("INSECURE", boolean) {
            Some(true) => format!("http://{}", given.value),
            _ => format!("https://{}", given.value),
        },
        None => {
            return Err(invalid(
                given,
                "it must begin with http:// or https://, as in http://localhost:4318",
            ));
        }
    };
    let url = Uri::from_str(&text).map_err(|error| invalid(given, &format!("it is not a URL: {error}")))?;
    check(given, &url)?;
    let path = url.path().trim_end_matches('/');
    let signal = SIGNAL_PATHS.iter().find(|signal| path.ends_with(*signal));
    let problem = match (is_grpc, is_base) {
        (true, _) if url.query().is_some() => "gRPC has no query; remove it".to_owned(),
        (true, _) if signal.is_some() => {
            "gRPC has its own paths; remove this one, or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
                .to_owned()
        }
        (false, true) if url.query().is_some() => {
            "a base URL has no query; set OTEL_EXPORTER_OTLP_METRICS_ENDPOINT to the whole URL".to_owned()
        }
        (false, true) => match signal {
            Some(signal) => format!(
                "/v1/metrics is appended to it; remove {signal}, or set OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
            ),
            None => String::new(),
        },
        _ => String::new(),
    };
    if !problem.is_empty() {
        return Err(invalid(given, &problem));
    }
    let path = match (is_grpc, is_base) {
        (false, true) => format!("{path}/v1/metrics"),
        (false, false) => return Ok(url),
        (true, _) if path.is_empty() => "/".to_owned(),
        (true, _) => path.to_owned(),
    };
    let mut parts = url.into_parts();
    parts.path_and_query = PathAndQuery::from_str(&path).ok();
    Uri::from_parts(parts).map_err(|error| invalid(given, &error.to_string()))
}

fn default_endpoint(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "http://localhost:4317",
        Protocol::HttpProtobuf | Protocol::HttpJson => "http://localhost:4318",
    }
}

fn check(given: &Variable, url: &Uri) -> Result<(), Error> {
    let problem = match url.authority() {
        None => "it has no host",
        Some(authority) if authority.as_str().contains('@') => {
            "a user and a password in an endpoint are not sent; set a header instead"
        }
        Some(authority) if authority.host().is_empty() => "it has no host",
        Some(authority) if authority.port_u16().is_none() && authority.as_str() != authority.host() => {
            "its port is not a number up to 65535"
        }
        Some(_) if url.scheme() == Some(&Scheme::HTTPS) && !cfg!(feature = "otlp-tls") => {
            match given.value.contains("://") {
                true => "https needs the Cargo feature `otlp-tls`",
                false => {
                    "without a scheme https is meant, which needs the Cargo feature `otlp-tls`; \
                     begin with http:// or set OTEL_EXPORTER_OTLP_INSECURE=true"
                }
            }
        }
        Some(_) => return Ok(()),
    };
    Err(invalid(given, problem))
}

fn invalid(given: &Variable, problem: &str) -> Error {
    Error::setting(&given.name, &shown_url(&given.value), problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::config::env::with;

    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const METRICS: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";

    fn endpoint(protocol: Protocol, set: &[(&str, &str)]) -> Result<Endpoint, String> {
        let read = |env: &Env<'_>| Endpoint::new(protocol, &Options::default(), env, &mut Secrets::default());
        with(set, read).map_err(|error| error.to_string())
    }

    fn url(protocol: Protocol, set: &[(&str, &str)]) -> Result<String, String> {
        endpoint(protocol, set).map(|endpoint| endpoint.url.to_string())
    }

    #[test]
    fn http_appends_its_path_to_the_general_endpoint_alone() {
        let http = |set: &[(&str, &str)]| url(Protocol::HttpProtobuf, set).unwrap();
        assert_eq!(http(&[]), "http://localhost:4318/v1/metrics");
        assert_eq!(http(&[(ALL, "http://h:1")]), "http://h:1/v1/metrics");
        assert_eq!(http(&[(ALL, "http://h:1/")]), "http://h:1/v1/metrics");
        assert_eq!(http(&[(ALL, "http://h/otlp/base/")]), "http://h/otlp/base/v1/metrics");
        assert_eq!(http(&[(METRICS, "http://h:1")]), "http://h:1/");
        assert_eq!(http(&[(METRICS, "http://h:1/in?tenant=1")]), "http://h:1/in?tenant=1");
        assert_eq!(http(&[(METRICS, "http://h:1/v1/metrics")]), "http://h:1/v1/metrics");
        assert_eq!(http(&[(ALL, "http://a"), (METRICS, "http://b/in")]), "http://b/in");
        assert_eq!(http(&[(ALL, "http://[::1]:1")]), "http://[::1]:1/v1/metrics");
        assert_eq!(http(&[(ALL, " ")]), "http://localhost:4318/v1/metrics", "an empty one is not set");
    }

    #[test]
    fn a_scheme_may_be_in_upper_case() {
        let http = endpoint(Protocol::HttpProtobuf, &[(ALL, "HTTP://H:1")]).unwrap();
        assert_eq!((http.url.scheme(), http.url.path()), (Some(&Scheme::HTTP), "/v1/metrics"));
        if cfg!(feature = "otlp-tls") {
            assert!(endpoint(Protocol::HttpProtobuf, &[(ALL, "HTTPS://h:1")]).unwrap().is_https());
        }
    }

    #[test]
    fn grpc_keeps_the_base_path() {
        let grpc = |set: &[(&str, &str)]| url(Protocol::Grpc, set).unwrap();
        assert_eq!(grpc(&[]), "http://localhost:4317/");
        assert_eq!(grpc(&[(ALL, "http://h:1/")]), "http://h:1/");
        assert_eq!(grpc(&[(METRICS, "http://h:1/base/")]), "http://h:1/base");
    }

    #[test]
    #[cfg(unix)]
    fn a_socket_is_a_path() {
        for value in ["unix:///run/otel.sock", "unix:/run/otel.sock"] {
            let http = endpoint(Protocol::HttpProtobuf, &[(ALL, value)]).unwrap();
            assert_eq!(http.socket, Some("/run/otel.sock".into()));
            assert_eq!(
                (http.url.to_string(), http.name),
                ("http://localhost/v1/metrics".into(), value.into())
            );
            assert_eq!(url(Protocol::Grpc, &[(ALL, value)]).unwrap(), "http://localhost/");
        }
        let error = url(Protocol::Grpc, &[(ALL, "unix://otel.sock")]).unwrap_err();
        assert!(error.contains("must be absolute"), "{error}");
    }

    #[test]
    fn without_a_scheme_insecure_decides() {
        let schemeless = |set: &[(&str, &str)]| url(Protocol::Grpc, &[&[(ALL, "h:1")], set].concat());
        assert_eq!(schemeless(&[("OTEL_EXPORTER_OTLP_INSECURE", "true")]).unwrap(), "http://h:1/");
        assert_eq!(schemeless(&[("OTEL_EXPORTER_OTLP_METRICS_INSECURE", "TRUE")]).unwrap(), "http://h:1/");
        for secure in [&[][..], &[("OTEL_EXPORTER_OTLP_INSECURE", "yes")]] {
            match cfg!(feature = "otlp-tls") {
                true => assert_eq!(schemeless(secure).unwrap(), "https://h:1/"),
                false => {
                    assert!(schemeless(secure).unwrap_err().contains("OTEL_EXPORTER_OTLP_INSECURE=true"))
                }
            }
        }
        // A scheme goes before it.
        let set = [(ALL, "http://h:1"), ("OTEL_EXPORTER_OTLP_INSECURE", "false")];
        assert_eq!(url(Protocol::Grpc, &set).unwrap(), "http://h:1/");
    }

    #[test]
    fn each_mistake_has_its_sentence() {
        let http = |value| url(Protocol::HttpProtobuf, &[(ALL, value)]).unwrap_err();
        for (value, shown, problem) in [
            ("h:4318", "h:4318", "it must begin with http:// or https://"),
            ("ftp://h", "ftp://h", "it must begin with http://"),
            ("http://", "http://", "it is not a URL"),
            ("http://h:port", "http://h:port", "its port is not a number"),
            ("http://h:65536", "http://h:65536", "its port is not a number"),
            ("http://a b", "http://[hidden]", "it is not a URL"),
            ("http://:4318", "http://:4318", "it has no host"),
            ("\"http://h:4318\"", "[hidden]://[hidden]", "the value stands in quotes; remove them"),
            (
                "http://h:4318/v1/metrics",
                "http://h:4318/v1/metrics",
                "/v1/metrics is appended to it; remove /v1/metrics",
            ),
            (
                "http://h:4318/in/v1/traces/",
                "http://h:4318/in/v1/traces/",
                "/v1/metrics is appended to it; remove /v1/traces",
            ),
            ("http://h:4318?tenant=s3cret", "http://h:4318?[hidden]", "a base URL has no query"),
        ] {
            let error = http(value);
            assert!(error.starts_with(&format!("{ALL}={shown}: {problem}")), "{error}");
        }
        let grpc = |value| url(Protocol::Grpc, &[(METRICS, value)]).unwrap_err();
        assert!(grpc("http://h:4317/v1/metrics").contains("gRPC has its own paths; remove this one"));
        assert!(grpc("http://h:4317?a=b").contains("gRPC has no query; remove it"));
        if !cfg!(feature = "otlp-tls") {
            assert!(http("https://h").ends_with("https needs the Cargo feature `otlp-tls`"));
        }
    }

    #[test]
    #[cfg(feature = "otlp-profiles")]
    fn profiles_go_to_the_same_server() {
        let profiles = |protocol, set: &[(&str, &str)]| {
            let profiles = endpoint(protocol, set).unwrap().of_profiles(protocol)?;
            Some((profiles.url.to_string(), profiles.name))
        };
        let http = |set: &[(&str, &str)]| profiles(Protocol::HttpProtobuf, set);
        let same = |url: &str| Some((url.to_owned(), url.to_owned()));
        assert_eq!(http(&[]), same("http://localhost:4318/v1development/profiles"));
        assert_eq!(http(&[(ALL, "http://h/otlp/")]), same("http://h/otlp/v1development/profiles"));
        assert_eq!(http(&[(METRICS, "http://h:1/v1/metrics/")]), same("http://h:1/v1development/profiles"));
        let hidden = "http://h:1/v1development/profiles?[hidden]";
        let with_query = "http://h:1/v1development/profiles?k=s3cret";
        let expected = Some((with_query.to_owned(), hidden.to_owned()));
        assert_eq!(http(&[(METRICS, "http://h:1/v1/metrics?k=s3cret")]), expected);
        assert_eq!(http(&[(METRICS, "http://h:1/in")]), None);
        assert_eq!(
            profiles(Protocol::Grpc, &[]),
            Some(("http://localhost:4317/".into(), "http://localhost:4317/".into()))
        );
        if cfg!(unix) {
            let expected =
                ("http://localhost/v1development/profiles".to_owned(), "unix:///run/o.sock".to_owned());
            assert_eq!(http(&[(ALL, "unix:///run/o.sock")]), Some(expected));
        }
    }

    #[test]
    fn no_error_and_no_name_shows_secrets() {
        let error = |value| url(Protocol::HttpProtobuf, &[(METRICS, value)]).unwrap_err();
        assert_eq!(
            error("http://user:s3cret@h/in?token=s3cret"),
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://[hidden]@h/in?[hidden]: \
             a user and a password in an endpoint are not sent; set a header instead"
        );
        for value in
            ["user:s3cret@h?token=s3cret", "http://user:s3/cret@h", "http://h:1 s3cret", "s3cret://h"]
        {
            assert!(!error(value).contains("s3cret"), "{}", error(value));
        }
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
        let error = url(Protocol::Grpc, &[(METRICS, jwt)]).unwrap_err();
        assert!(error.contains("=[hidden]: it must be a URL"), "{error}");
        let token = "0123456789abcdefghijklmn";
        let good =
            endpoint(Protocol::HttpProtobuf, &[(METRICS, &format!("https://h:1/in/{token}/x?k=s3cret"))]);
        if let Ok(good) = good {
            assert_eq!(good.name, "https://h:1/in/[hidden]/x?[hidden]");
        }
    }
}
