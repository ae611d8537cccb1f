//! Where the metrics go, and how: endpoint, protocol, headers.

use std::fmt;
use std::str::FromStr;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::error::Error;
use super::settings::Options;
use super::variables::{HIDDEN, Variable, Variables};

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// gRPC over HTTP/2: `grpc`, port 4317. Needs the feature `otlp-grpc`.
    Grpc,
    /// Protobuf over HTTP/1.1: `http/protobuf`, port 4318. Needs the feature `otlp-http`.
    HttpProtobuf,
}

pub(super) struct Target {
    pub(super) protocol: Protocol,
    /// With the path of metrics, where the protocol has one.
    pub(super) endpoint: Uri,
    pub(super) headers: HeaderMap,
}

impl Target {
    pub(super) fn new(options: &Options, variables: &Variables<'_>) -> Result<Self, Error> {
        let protocol = protocol(options, variables)?;
        Ok(Target {
            protocol,
            endpoint: endpoint(protocol, options, variables)?,
            headers: headers(options, variables)?,
        })
    }

    /// Takes out what a receiver may have echoed of our headers, and what would break a line.
    pub(super) fn redact(&self, text: &str) -> String {
        let mut text: String = text
            .chars()
            .map(|character| if character.is_control() { ' ' } else { character })
            .take(MOST_OF_A_MESSAGE)
            .collect();
        for value in self.headers.values().filter_map(|value| value.to_str().ok()) {
            // `Bearer token` may be echoed as `token`.
            for secret in value.split_whitespace().filter(|part| part.len() >= 4) {
                text = text.replace(secret, HIDDEN);
            }
        }
        text
    }
}

const MOST_OF_A_MESSAGE: usize = 300;

/// Without the values of the headers.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("protocol", &self.protocol)
            .field("endpoint", &self.endpoint)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .finish()
    }
}

fn protocol(options: &Options, variables: &Variables<'_>) -> Result<Protocol, Error> {
    const HTTP: bool = cfg!(feature = "otlp-http");
    const GRPC: bool = cfg!(feature = "otlp-grpc");
    let given = match (options.protocol, variables.exporter("PROTOCOL")?) {
        (Some(protocol), _) => Variable::new("protocol", protocol.name()),
        (None, Some(variable)) => variable,
        // The specification's default where it is compiled.
        (None, None) if HTTP => return Ok(Protocol::HttpProtobuf),
        (None, None) => return Ok(Protocol::Grpc),
    };
    let json = given.value.eq_ignore_ascii_case("http/json");
    if json {
        return Err(given.invalid("JSON is not supported, use http/protobuf"));
    }
    let protocol = given.choose(&[("grpc", Protocol::Grpc), ("http/protobuf", Protocol::HttpProtobuf)])?;
    match protocol {
        Protocol::Grpc if !GRPC => Err(given.invalid("it needs the Cargo feature `otlp-grpc`")),
        Protocol::HttpProtobuf if !HTTP => Err(given.invalid("it needs the Cargo feature `otlp-http`")),
        _ => Ok(protocol),
    }
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Grpc => "grpc",
            Protocol::HttpProtobuf => "http/protobuf",
        }
    }

    fn default_endpoint(self) -> &'static str {
        match self {
            Protocol::Grpc => "http://localhost:4317",
            Protocol::HttpProtobuf => "http://localhost:4318",
        }
    }
}

fn endpoint(protocol: Protocol, options: &Options, variables: &Variables<'_>) -> Result<Uri, Error> {
    let general = |variable| (variable, true);
    let (given, is_base) = match &options.endpoint {
        Some(text) => general(Variable::new("endpoint", text)),
        None => match variables.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")? {
            Some(variable) => (variable, false),
            None => general(
                variables
                    .get("OTEL_EXPORTER_OTLP_ENDPOINT")?
                    .unwrap_or_else(|| Variable::new("endpoint", protocol.default_endpoint())),
            ),
        },
    };
    let text = match given.value.contains("://") {
        true => given.value.clone(),
        false => match protocol {
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

fn check(given: &Variable, uri: &Uri) -> Result<(), Error> {
    let problem = match (uri.scheme(), uri.authority()) {
        (Some(scheme), _) if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS => {
            "only http:// and https:// are supported"
        }
        (_, None) => "there is no host in it",
        (_, Some(authority)) if authority.as_str().contains('@') => {
            "credentials in an endpoint are not sent, set a header instead"
        }
        (_, Some(authority)) if authority.host().is_empty() => "there is no host in it",
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

fn headers(options: &Options, variables: &Variables<'_>) -> Result<HeaderMap, Error> {
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
