//! Connections, the same for both protocols.

use std::time::Duration;

use http_body::Body;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::error::Error;
use super::target::Target;

/// A client that keeps its connection open from one export to the next.
pub(super) type Client<B> = legacy::Client<HttpConnector, B>;

/// How a connection is made.
#[derive(Clone)]
pub(super) struct Connector(HttpConnector);

/// A receiver has a few hundred bytes to say.
pub(super) const LONGEST_ANSWER: usize = 64 * 1024;

/// When the kernel finds out that a receiver has vanished without a word: before the next export, as a rule.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_RETRY: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

impl Connector {
    pub(super) fn new(_target: &Target, timeout: Duration) -> Result<Self, Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_RETRY));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        Ok(Connector(tcp))
    }

    /// A client without any connection yet.
    pub(super) fn client<B>(&self, http2: bool) -> Client<B>
    where
        B: Body + Send,
        B::Data: Send,
    {
        legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .http2_only(http2)
            .build(self.0.clone())
    }
}
