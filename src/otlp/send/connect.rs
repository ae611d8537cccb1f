//! Connections, the same for both protocols.

use std::time::Duration;

use http_body::Body;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::otlp::config::target::{Protocol, Target};
use crate::otlp::error::{Error, chain};
use crate::otlp::export::retry::{Again, Failure};

/// A client that keeps its connection open from one export to the next.
pub(in crate::otlp) type Client<B> = legacy::Client<Stream, B>;

#[cfg(feature = "otlp-tls")]
type Stream = crate::otlp::send::stream::Noting<hyper_rustls::HttpsConnector<HttpConnector>>;
#[cfg(not(feature = "otlp-tls"))]
type Stream = HttpConnector;

/// How a connection is made.
pub(in crate::otlp) struct Connector {
    stream: Stream,
    http2: bool,
}

/// In bytes. A receiver has a few hundred to say.
pub(in crate::otlp) const LONGEST_ANSWER: usize = 64 * 1024;

/// When the kernel finds out that a receiver has vanished without a word: before the next export, as a rule.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_RETRY: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// What HTTP/2 looks like to HTTP/1.1, and the reverse.
const FOREIGN: [&str; 2] = ["invalid HTTP version parsed", "frame with invalid size"];

impl Connector {
    pub(in crate::otlp) fn new(target: &Target, timeout: Duration) -> Result<Self, Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_RETRY));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        #[cfg(feature = "otlp-tls")]
        let stream = crate::otlp::send::stream::Noting {
            connector: target.identity.connector(tcp, target)?,
            alert: crate::otlp::send::stream::Alert::default(),
        };
        #[cfg(not(feature = "otlp-tls"))]
        let stream = tcp;
        Ok(Connector { stream, http2: target.protocol == Protocol::Grpc })
    }

    /// A client without any connection yet.
    pub(in crate::otlp) fn client<B>(&self) -> Client<B>
    where
        B: Body + Send,
        B::Data: Send,
    {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new()).pool_max_idle_per_host(1);
        // Attempts are counted in one place.
        builder.retry_canceled_requests(false);
        if self.http2 {
            #[cfg(feature = "otlp-grpc")]
            builder.http2_only(true);
        }
        builder.build(self.stream.clone())
    }

    /// There was no answer, because of this.
    pub(in crate::otlp) fn unreachable(
        &self,
        target: &Target,
        error: &(dyn std::error::Error + 'static),
    ) -> Failure {
        let to = target.name();
        #[cfg(feature = "otlp-tls")]
        if let Some(alert) = self.stream.alert.take() {
            return Failure { message: format!("{to} refuses the connection: {alert}"), again: Again::Never };
        }
        #[cfg(feature = "otlp-tls")]
        let again = if crate::otlp::send::tls::is_refusal(error) { Again::Never } else { Again::Soon };
        #[cfg(not(feature = "otlp-tls"))]
        let again = Again::Soon;
        let why = target.redact(&chain(error));
        if FOREIGN.iter().any(|sign| why.contains(sign)) {
            let message = format!(
                "{to} speaks another protocol than OTEL_EXPORTER_OTLP_PROTOCOL says, or not OTLP: {why}"
            );
            return Failure { message, again: Again::Never };
        }
        Failure { message: format!("{to}: {why}"), again }
    }
}
