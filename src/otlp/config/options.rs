//! The settings that an application makes in code.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;

/// The protocol and encoding of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// gRPC over HTTP/2: `grpc`, port 4317. Needs the feature `otlp-grpc`.
    Grpc,
    /// Protobuf over HTTP/1.1: `http/protobuf`, port 4318. Needs the feature `otlp-http`.
    HttpProtobuf,
    /// JSON over HTTP/1.1: `http/json`, port 4318. Needs the feature `otlp-http-json`. JSON has no infinity and no NaN,
    /// so that points with such values are left out. Profiles are sent in protobuf.
    HttpJson,
}

/// The settings of the builder. The rest is read from the environment.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) endpoint: Option<String>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) headers: Vec<(String, HeaderSource)>,
    pub(crate) interval: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) shutdown_timeout: Option<Duration>,
    pub(crate) resource: Vec<KeyValue>,
    #[cfg(feature = "otlp-profiles")]
    pub(crate) profile_every: Option<Duration>,
    #[cfg(feature = "otlp-profiles")]
    pub(crate) cpu_profile_every: Option<Duration>,
}

/// The origin of a header's value.
#[derive(Clone)]
pub(crate) enum HeaderSource {
    Fixed(String),
    /// Called before each attempt.
    Function(Arc<dyn Fn() -> String + Send + Sync>),
}
