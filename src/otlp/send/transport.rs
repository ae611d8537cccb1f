//! One attempt to deliver an export, over any protocol.

use std::time::Duration;

use crate::otlp::config::settings::Target;
use crate::otlp::error::Error;
use crate::otlp::send::connect::Connector;
use crate::otlp::send::console;
#[cfg(feature = "otlp-grpc")]
use crate::otlp::send::grpc::Grpc;
#[cfg(feature = "otlp-http")]
use crate::otlp::send::http::Http;
use crate::otlp::send::outcome::{Outcome, SendError};
use crate::otlp::send::payload::Payload;
use crate::otlp::send::stream::Notes;

pub(crate) enum Transport {
    #[cfg(feature = "otlp-grpc")]
    Grpc(Box<Grpc>),
    #[cfg(feature = "otlp-http")]
    Http(Box<Http>),
    Console,
}

impl Transport {
    pub(crate) fn otlp(target: Target, timeout: Duration) -> Result<Self, Error> {
        #[cfg(feature = "otlp-tls")]
        let mut target = target;
        #[cfg(feature = "otlp-tls")]
        let tls = target.identity.take().map(crate::otlp::send::tls::Tls::new).transpose()?;
        let connector = Connector::new(
            &target,
            #[cfg(feature = "otlp-tls")]
            tls,
            timeout,
        );
        Ok(match target.protocol {
            #[cfg(feature = "otlp-grpc")]
            crate::otlp::config::options::Protocol::Grpc => {
                Transport::Grpc(Box::new(Grpc::new(target, connector)))
            }
            #[cfg(feature = "otlp-http")]
            _ => Transport::Http(Box::new(Http::new(target, connector))),
            #[cfg(not(feature = "otlp-http"))]
            protocol => return Err(Error::Start(format!("{protocol:?} is not compiled"))),
        })
    }

    /// The endpoint, for messages.
    pub(crate) fn name(&self) -> String {
        match self {
            #[cfg(feature = "otlp-grpc")]
            Transport::Grpc(grpc) => grpc.target().endpoint.name.clone(),
            #[cfg(feature = "otlp-http")]
            Transport::Http(http) => http.target().endpoint.name.clone(),
            Transport::Console => "the console".into(),
        }
    }

    /// The endpoint and the way to it, for messages.
    pub(crate) fn route(&self) -> String {
        let target = match self {
            #[cfg(feature = "otlp-grpc")]
            Transport::Grpc(grpc) => grpc.target(),
            #[cfg(feature = "otlp-http")]
            Transport::Http(http) => http.target(),
            Transport::Console => return self.name(),
        };
        match &target.proxy {
            Some(proxy) => format!("{} through {}", target.endpoint.name, proxy.name()),
            None => target.endpoint.name.clone(),
        }
    }

    /// The bytes that its connections have received so far. `None` without connections.
    pub(crate) fn notes(&self) -> Option<&Notes> {
        match self {
            #[cfg(feature = "otlp-grpc")]
            Transport::Grpc(grpc) => Some(grpc.connector().notes()),
            #[cfg(feature = "otlp-http")]
            Transport::Http(http) => Some(http.connector().notes()),
            Transport::Console => None,
        }
    }

    /// One attempt. May be dropped at any time.
    pub(crate) async fn send(&mut self, payload: Payload<'_>) -> Result<Outcome, SendError> {
        match self {
            #[cfg(feature = "otlp-grpc")]
            Transport::Grpc(grpc) => grpc.send(payload).await,
            #[cfg(feature = "otlp-http")]
            Transport::Http(http) => http.send(payload).await,
            Transport::Console => match payload {
                Payload::Metrics(metrics) => console::print(metrics),
                // The console has no form for profiles, and gets none.
                #[cfg(feature = "otlp-profiles")]
                Payload::Profiles(_) => Ok(Outcome::ACCEPTED),
            },
        }
    }

    /// Forgets all connections.
    pub(crate) fn reconnect(&mut self) {
        match self {
            #[cfg(feature = "otlp-grpc")]
            Transport::Grpc(grpc) => grpc.reconnect(),
            #[cfg(feature = "otlp-http")]
            Transport::Http(http) => http.reconnect(),
            Transport::Console => {}
        }
    }
}
