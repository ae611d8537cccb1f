//! Delivers exports: over gRPC, over HTTP, or to the console.

#[cfg(feature = "otlp-http")]
mod answer;
mod connect;
mod console;
#[cfg(feature = "otlp-grpc")]
mod details;
#[cfg(feature = "otlp-http-json")]
mod finite;
#[cfg(feature = "otlp-grpc")]
mod grpc;
#[cfg(feature = "otlp-http")]
mod http;
pub(crate) mod outcome;
pub(crate) mod payload;
#[cfg(feature = "otlp-tls")]
mod roots;
pub(crate) mod stream;
#[cfg(feature = "otlp-tls")]
mod tls;
pub(crate) mod transport;
