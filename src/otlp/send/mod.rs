//! What an export is handed to.

pub(in crate::otlp) mod connect;
pub(in crate::otlp) mod console;
#[cfg(feature = "otlp-grpc")]
pub(in crate::otlp) mod grpc;
#[cfg(feature = "otlp-http")]
pub(in crate::otlp) mod http;
#[cfg(feature = "otlp-tls")]
pub(in crate::otlp) mod stream;
#[cfg(feature = "otlp-tls")]
pub(in crate::otlp) mod tls;

use std::time::Duration;

use opentelemetry_sdk::metrics::data::ResourceMetrics;

use crate::otlp::config::target::{Protocol, Target};
use crate::otlp::error::Error;
use crate::otlp::export::retry::{Delivered, Failure};
use crate::otlp::send::console;
#[cfg(feature = "otlp-grpc")]
use crate::otlp::send::grpc::Grpc;
#[cfg(feature = "otlp-http")]
use crate::otlp::send::http::Http;

pub(in crate::otlp) enum Transport {
    #[cfg(feature = "otlp-grpc")]
    Grpc(Grpc),
    #[cfg(feature = "otlp-http")]
    Http(Http),
    Console,
}

impl Transport {
    pub(in crate::otlp) fn otlp(target: Target, timeout: Duration) -> Result<Self, Error> {
        match target.protocol {
            #[cfg(feature = "otlp-grpc")]
            Protocol::Grpc => Ok(Transport::Grpc(Grpc::new(target, timeout)?)),
            #[cfg(feature = "otlp-http")]
            Protocol::HttpProtobuf => Ok(Transport::Http(Http::new(target, timeout)?)),
            #[cfg(not(all(feature = "otlp-grpc", feature = "otlp-http")))]
            protocol => Err(Error::Start(format!("{protocol:?} is not compiled"))),
        }
    }

    pub(in crate::otlp) fn console() -> Self {
        Transport::Console
    }

    /// For messages.
    pub(in crate::otlp) fn name(&self) -> String {
        match self {
            #[cfg(feature = "otlp-grpc")]
            Transport::Grpc(grpc) => grpc.target().name(),
            #[cfg(feature = "otlp-http")]
            Transport::Http(http) => http.target().name(),
            Transport::Console => "the console".into(),
        }
    }

    /// One attempt. May be dropped at any time.
    pub(in crate::otlp) async fn send(&mut self, metrics: &ResourceMetrics) -> Result<Delivered, Failure> {
        match self {
            #[cfg(feature = "otlp-grpc")]
            Transport::Grpc(grpc) => grpc.send(metrics).await,
            #[cfg(feature = "otlp-http")]
            Transport::Http(http) => http.send(metrics).await,
            Transport::Console => console::print(metrics),
        }
    }

    /// Forgets all connections.
    pub(in crate::otlp) fn reconnect(&mut self) {
        match self {
            #[cfg(feature = "otlp-grpc")]
            Transport::Grpc(grpc) => grpc.reconnect(),
            #[cfg(feature = "otlp-http")]
            Transport::Http(http) => http.reconnect(),
            Transport::Console => {}
        }
    }
}
