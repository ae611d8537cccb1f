//! What an export is handed to.

use std::time::Duration;

use opentelemetry_sdk::metrics::data::ResourceMetrics;

use super::console;
use super::error::Error;
#[cfg(feature = "otlp-grpc")]
use super::grpc::Grpc;
#[cfg(feature = "otlp-http")]
use super::http_protobuf::Http;
use super::retry::{Delivered, Failure};
use super::target::{Protocol, Target};

pub(super) enum Transport {
    #[cfg(feature = "otlp-grpc")]
    Grpc(Grpc),
    #[cfg(feature = "otlp-http")]
    Http(Http),
    Console,
}

impl Transport {
    pub(super) fn otlp(target: Target, timeout: Duration) -> Result<Self, Error> {
        match target.protocol {
            #[cfg(feature = "otlp-grpc")]
            Protocol::Grpc => Ok(Transport::Grpc(Grpc::new(target, timeout)?)),
            #[cfg(feature = "otlp-http")]
            Protocol::HttpProtobuf => Ok(Transport::Http(Http::new(target, timeout)?)),
            #[cfg(not(all(feature = "otlp-grpc", feature = "otlp-http")))]
            protocol => Err(Error::Start(format!("{protocol:?} is not compiled"))),
        }
    }

    pub(super) fn console() -> Self {
        Transport::Console
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        match self {
            #[cfg(feature = "otlp-grpc")]
            Transport::Grpc(grpc) => grpc.target().name(),
            #[cfg(feature = "otlp-http")]
            Transport::Http(http) => http.target().name(),
            Transport::Console => "the console".into(),
        }
    }

    /// One attempt. May be dropped at any time.
    pub(super) async fn send(&mut self, metrics: &ResourceMetrics) -> Result<Delivered, Failure> {
        match self {
            #[cfg(feature = "otlp-grpc")]
            Transport::Grpc(grpc) => grpc.send(metrics).await,
            #[cfg(feature = "otlp-http")]
            Transport::Http(http) => http.send(metrics).await,
            Transport::Console => console::print(metrics),
        }
    }

    /// Forgets all connections.
    pub(super) fn reconnect(&mut self) {
        match self {
            #[cfg(feature = "otlp-grpc")]
            Transport::Grpc(grpc) => grpc.reconnect(),
            #[cfg(feature = "otlp-http")]
            Transport::Http(http) => http.reconnect(),
            Transport::Console => {}
        }
    }
}
