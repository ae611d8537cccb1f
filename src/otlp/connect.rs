//! Connections, the same for both protocols.

use std::time::Duration;

use http_body::Body;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::error::{Error, chain};
use super::retry::{Again, Failure};
use super::target::{Protocol, Target};

/// A client that keeps its connection open from one export to the next.
pub(super) type Client<B> = legacy::Client<Stream, B>;

#[cfg(feature = "otlp-tls")]
type Stream = super::alert::Noting<hyper_rustls::HttpsConnector<HttpConnector>>;
#[cfg(not(feature = "otlp-tls"))]
type Stream = HttpConnector;

/// How a connection is made.
pub(super) struct Connector {
    stream: Stream,
    http2: bool,
}

/// In bytes. A receiver has a few hundred to say.
pub(super) const LONGEST_ANSWER: usize = 64 * 1024;

/// When the kernel finds out that a receiver has vanished without a word: before the next export, as a rule.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_RETRY: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// What HTTP/2 looks like to HTTP/1.1, and the reverse.
const FOREIGN: [&str; 2] = ["invalid HTTP version parsed", "frame with invalid size"];

impl Connector {
    pub(super) fn new(target: &Target, timeout: Duration) -> Result<Self, Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_RETRY));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        #[cfg(feature = "otlp-tls")]
        let stream = super::alert::Noting {
            connector: target.identity.connector(tcp, target)?,
            alert: super::alert::Alert::default(),
        };
        #[cfg(not(feature = "otlp-tls"))]
        let stream = tcp;
        Ok(Connector { stream, http2: target.protocol == Protocol::Grpc })
    }

    /// A client without any connection yet.
    pub(super) fn client<B>(&self) -> Client<B>
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
    pub(super) fn unreachable(&self, target: &Target, error: &(dyn std::error::Error + 'static)) -> Failure {
        let to = target.name();
        #[cfg(feature = "otlp-tls")]
        if let Some(alert) = self.stream.alert.take() {
            return Failure { message: format!("{to} refuses the connection: {alert}"), again: Again::Never };
        }
        #[cfg(feature = "otlp-tls")]
        let again = if super::tls::is_refusal(error) { Again::Never } else { Again::Soon };
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
