//! The settings that an application makes in code.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// gRPC over HTTP/2: `grpc`, port 4317. Needs the feature `otlp-grpc`.
    Grpc,
    /// Protobuf over HTTP/1.1: `http/protobuf`, port 4318. Needs the feature `otlp-http`.
    HttpProtobuf,
    /// JSON over HTTP/1.1: `http/json`, port 4318. Needs the feature `otlp-http-json`. JSON has no infinity and no NaN,
    /// so that points with such values are left out.
    HttpJson,
}

/// What the builder was given. The rest is read from the environment.
#[derive(Default)]
pub(in crate::otlp) struct Options {
    pub(in crate::otlp) endpoint: Option<String>,
    pub(in crate::otlp) protocol: Option<Protocol>,
    pub(in crate::otlp) headers: Vec<(String, HeaderSource)>,
    pub(in crate::otlp) interval: Option<Duration>,
    pub(in crate::otlp) timeout: Option<Duration>,
    pub(in crate::otlp) shutdown_timeout: Option<Duration>,
    pub(in crate::otlp) resource: Vec<KeyValue>,
}

/// Where the value of a header comes from.
#[derive(Clone)]
pub(in crate::otlp) enum HeaderSource {
    Fixed(String),
    /// Called before each attempt.
    Function(Arc<dyn Fn() -> String + Send + Sync>),
}
