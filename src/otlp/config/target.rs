//! Where the metrics go, and how.

use std::fmt;

use http::{HeaderMap, Uri};

use crate::otlp::config::endpoint::endpoint;
use crate::otlp::config::env::{HIDDEN, Variable, Variables};
use crate::otlp::config::headers::headers;
use crate::otlp::config::settings::Options;
use crate::otlp::error::Error;
#[cfg(feature = "otlp-tls")]
use crate::otlp::send::tls::Identity;

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// gRPC over HTTP/2: `grpc`, port 4317. Needs the feature `otlp-grpc`.
    Grpc,
    /// Protobuf over HTTP/1.1: `http/protobuf`, port 4318. Needs the feature `otlp-http`.
    HttpProtobuf,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Grpc => "grpc",
            Protocol::HttpProtobuf => "http/protobuf",
        }
    }
}

/// How requests are made smaller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::otlp) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// All that a transport needs to know.
pub(in crate::otlp) struct Target {
    pub(in crate::otlp) protocol: Protocol,
    pub(in crate::otlp) endpoint: Uri,
    pub(in crate::otlp) headers: HeaderMap,
    pub(in crate::otlp) compression: Compression,
    #[cfg(feature = "otlp-tls")]
    pub(in crate::otlp) identity: Identity,
}

impl Target {
    pub(in crate::otlp) fn new(options: &Options, variables: &Variables<'_>) -> Result<Self, Error> {
        let protocol = protocol(options, variables)?;
        Ok(Target {
            protocol,
            endpoint: endpoint(protocol, options, variables)?,
            headers: headers(options, variables)?,
            compression: compression(variables)?,
            #[cfg(feature = "otlp-tls")]
            identity: Identity::new(variables)?,
        })
    }

    /// For messages: without the query, which may hold a secret.
    pub(in crate::otlp) fn name(&self) -> String {
        let (scheme, authority) = (self.endpoint.scheme_str(), self.endpoint.authority());
        let authority = authority.map_or("", |authority| authority.as_str());
        format!("{}://{authority}{}", scheme.unwrap_or_default(), self.endpoint.path())
    }

    /// Takes out what a receiver may have echoed of our headers, and what would break a line.
    pub(in crate::otlp) fn redact(&self, text: &str) -> String {
        let printable = |character: char| if character.is_control() { ' ' } else { character };
        let mut text: String = text.chars().map(printable).take(LONGEST_MESSAGE).collect();
        for value in self.headers.values().filter(|value| value.is_sensitive()) {
            // `Bearer token` may be echoed as `token`.
            for secret in value.to_str().unwrap_or_default().split_whitespace().filter(|part| part.len() > 3)
            {
                text = text.replace(secret, HIDDEN);
            }
        }
        text
    }
}

/// In characters, of what is quoted from an answer.
const LONGEST_MESSAGE: usize = 300;

/// Without the values of the headers.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("protocol", &self.protocol)
            .field("endpoint", &self.name())
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

fn protocol(options: &Options, variables: &Variables<'_>) -> Result<Protocol, Error> {
    const HTTP: bool = cfg!(feature = "otlp-http");
    const GRPC: bool = cfg!(feature = "otlp-grpc");
    let given = match (options.protocol, variables.exporter("PROTOCOL")?) {
        (Some(protocol), _) => Variable::new("protocol", protocol.name()),
        (None, Some(variable)) => variable,
        // The specification's default, where it is compiled.
        (None, None) if HTTP => return Ok(Protocol::HttpProtobuf),
        (None, None) => return Ok(Protocol::Grpc),
    };
    match given.choose(&[("grpc", Protocol::Grpc), ("http/protobuf", Protocol::HttpProtobuf)])? {
        Protocol::Grpc if !GRPC => Err(given.invalid("it needs the Cargo feature `otlp-grpc`")),
        Protocol::HttpProtobuf if !HTTP => Err(given.invalid("it needs the Cargo feature `otlp-http`")),
        protocol => Ok(protocol),
    }
}

fn compression(variables: &Variables<'_>) -> Result<Compression, Error> {
    let Some(given) = variables.exporter("COMPRESSION")? else { return Ok(Compression::None) };
    let choices = [("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)];
    match given.choose(&choices)? {
        Compression::Gzip if !cfg!(feature = "otlp-gzip") => {
            Err(given.invalid("it needs the Cargo feature `otlp-gzip`"))
        }
        Compression::Zstd if !cfg!(feature = "otlp-zstd") => {
            Err(given.invalid("it needs the Cargo feature `otlp-zstd`"))
        }
        compression => Ok(compression),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::config::env::with;

    fn target(set: &[(&str, &str)]) -> Result<Target, String> {
        with(set, |variables| Target::new(&Options::default(), variables).map_err(|error| error.to_string()))
    }

    #[test]
    fn what_a_receiver_echoes_of_a_header_is_not_repeated() {
        let target = target(&[("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret")]).unwrap();
        assert_eq!(target.redact("no such token:\n\"s3cret\""), "no such token: \"[hidden]\"");
        assert!(!format!("{target:?}").contains("s3cret"));
        assert_eq!(target.redact(&"x".repeat(1000)).len(), LONGEST_MESSAGE);
    }

    #[test]
    #[cfg(feature = "otlp-http")]
    fn the_query_of_the_endpoint_is_not_told() {
        let endpoint = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://h:1/in?token=s3cret");
        let target = target(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]).unwrap();
        assert_eq!(target.endpoint.query(), Some("token=s3cret"));
        assert_eq!(target.name(), "http://h:1/in");
        assert!(!format!("{target:?}").contains("s3cret"));
    }

    #[test]
    fn a_protocol_that_is_not_compiled_or_unknown_is_an_error() {
        let protocol =
            |value| target(&[("OTEL_EXPORTER_OTLP_PROTOCOL", value)]).map(|target| target.protocol);
        let or_feature = |compiled, value, protocol, feature| match compiled {
            true => Ok(protocol),
            false => {
                Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL={value}: it needs the Cargo feature `{feature}`"))
            }
        };
        let (grpc, http) = (cfg!(feature = "otlp-grpc"), cfg!(feature = "otlp-http"));
        assert_eq!(protocol("grpc"), or_feature(grpc, "grpc", Protocol::Grpc, "otlp-grpc"));
        let http_protobuf = or_feature(http, "http/protobuf", Protocol::HttpProtobuf, "otlp-http");
        assert_eq!(protocol("http/protobuf"), http_protobuf);
        for unknown in ["http/json", "htp"] {
            let expected =
                format!("OTEL_EXPORTER_OTLP_PROTOCOL={unknown}: it has to be one of: grpc, http/protobuf");
            assert_eq!(protocol(unknown), Err(expected));
        }
        let default = if http { Protocol::HttpProtobuf } else { Protocol::Grpc };
        assert_eq!(target(&[]).unwrap().protocol, default);
    }

    #[test]
    fn the_protocol_for_metrics_goes_before_that_for_all_signals() {
        let set = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "nonsense"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "nonsense 2"),
        ];
        let error = target(&set).unwrap_err();
        assert!(error.starts_with("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=nonsense 2: "), "{error}");
    }

    #[test]
    fn a_compression_that_is_not_compiled_is_an_error_and_not_left_out() {
        let compression = |value| target(&[("OTEL_EXPORTER_OTLP_COMPRESSION", value)]).map(|t| t.compression);
        assert_eq!(compression("none"), Ok(Compression::None));
        for (value, meant, compiled) in [
            ("gzip", Compression::Gzip, cfg!(feature = "otlp-gzip")),
            ("zstd", Compression::Zstd, cfg!(feature = "otlp-zstd")),
        ] {
            let error =
                format!("OTEL_EXPORTER_OTLP_COMPRESSION={value}: it needs the Cargo feature `otlp-{value}`");
            assert_eq!(compression(value), if compiled { Ok(meant) } else { Err(error) });
        }
        let error = "OTEL_EXPORTER_OTLP_COMPRESSION=lz4: it has to be one of: none, gzip, zstd";
        assert_eq!(compression("lz4"), Err(error.into()));
    }
}
