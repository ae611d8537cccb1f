//! Makes connections, the same for both protocols, and says why one failed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http_body::Body;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

use crate::otlp::config::endpoint::Endpoint;
use crate::otlp::config::options::Protocol;
use crate::otlp::config::proxy::{Proxy, port_of};
use crate::otlp::config::secrets::Secrets;
use crate::otlp::config::settings::Target;
use crate::otlp::error::error_message;
use crate::otlp::send::outcome::{Retry, SendError};
use crate::otlp::send::stream::{Notes, Stream};
#[cfg(feature = "otlp-tls")]
use crate::otlp::send::tls::{ENDPOINT, Peer, Tls, sentence};

/// A client that keeps its connection open from one export to the next.
pub(crate) type Client<B> = legacy::Client<Connector, B>;

/// The part of an answer that is kept, in bytes. Endpoints send a few hundred.
pub(crate) const MAX_ANSWER: usize = 64 * 1024;

/// The kernel usually finds out that an endpoint has vanished silently before the next export.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_RETRY: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Connects to one endpoint.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    shared: Arc<Shared>,
    notes: Notes,
}

struct Shared {
    endpoint: Endpoint,
    proxy: Option<Proxy>,
    /// Of the URLs, for the answers of a proxy.
    secrets: Secrets,
    is_http2: bool,
    #[cfg(feature = "otlp-tls")]
    tls: Option<Tls>,
}

impl Connector {
    pub(crate) fn new(
        target: &Target,
        #[cfg(feature = "otlp-tls")] tls: Option<Tls>,
        timeout: Duration,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_RETRY));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        let shared = Shared {
            endpoint: target.endpoint.clone(),
            proxy: target.proxy.clone(),
            secrets: target.secrets.clone(),
            is_http2: target.protocol == Protocol::Grpc,
            #[cfg(feature = "otlp-tls")]
            tls,
        };
        Connector { tcp, shared: Arc::new(shared), notes: Notes::default() }
    }

    /// A client without any connection yet.
    pub(crate) fn client<B>(&self) -> Client<B>
    where
        B: Body + Send,
        B::Data: Send,
    {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new()).pool_max_idle_per_host(1);
        // Attempts are counted in one place.
        builder.retry_canceled_requests(false);
        if self.shared.is_http2 {
            #[cfg(feature = "otlp-grpc")]
            builder.http2_only(true);
        }
        builder.build(self.clone())
    }

    /// The bytes that its connections have received so far.
    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The credentials for a proxy that forwards requests. One that connects gets them beforehand.
    #[cfg(feature = "otlp-http")]
    pub(crate) fn forwarding_authorization(&self) -> Option<&http::HeaderValue> {
        self.shared.forwarding_proxy().and_then(|proxy| proxy.authorization.as_ref())
    }

    async fn connect(mut self, to: Uri) -> Result<Stream, SendError> {
        let shared = Arc::clone(&self.shared);
        // Under TLS, what comes in is not what the endpoint says.
        let notes = if shared.endpoint.is_https() { Notes::default() } else { self.notes.clone() };
        let stream = match (&shared.endpoint.socket, &shared.proxy) {
            (Some(path), _) => unix(path, &shared.endpoint.name, &notes).await?,
            (None, None) => {
                let failed =
                    |error: &(dyn std::error::Error + 'static)| unconnected(&shared.endpoint.name, error);
                let tcp = self.tcp.call(to.clone()).await.map_err(|error| failed(&error))?;
                Stream::new(tcp, notes)
            }
            (None, Some(proxy)) if shared.forwarding_proxy().is_some() => {
                ToProxy { connector: self.clone(), notes }.connect(proxy).await?.forwarded()
            }
            (None, Some(proxy)) => Stream::new(self.tunnel(proxy, &to).await?, notes),
        };
        self.notes.restarted();
        #[cfg(feature = "otlp-tls")]
        if shared.endpoint.is_https()
            && let Some(tls) = &shared.tls
        {
            let protocol: &[u8] = if shared.is_http2 { b"h2" } else { b"http/1.1" };
            let host = to.host().unwrap_or_default();
            let peer = Peer { name: &shared.endpoint.name, setting: ENDPOINT };
            let stream = tls.handshake(host, protocol, &peer, stream).await?;
            self.notes.connected();
            return Ok(Stream::new(stream, self.notes));
        }
        self.notes.connected();
        Ok(stream)
    }

    /// Asks a proxy to connect to the endpoint.
    async fn tunnel(&self, proxy: &Proxy, to: &Uri) -> Result<Stream, SendError> {
        let notes = Notes::default();
        let connector = ToProxy { connector: self.clone(), notes: notes.clone() };
        let mut tunnel = Tunnel::new(proxy.url.clone(), connector);
        if let Some(authorization) = &proxy.authorization {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        tunnel.call(with_port(to)).await.map_err(|error| {
            let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<SendError>());
            if let Some(error) = source {
                return error.clone();
            }
            let answer = notes.first();
            let line = answer.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
            let (name, to) = (proxy.name(), &self.shared.endpoint.name);
            let status = String::from_utf8_lossy(line);
            match status.split(' ').nth(1) {
                Some("407") => SendError::new(
                    format!("{name} wants a user and a password; write them into {} as http://USER:PASSWORD@HOST:PORT", proxy.variable),
                    Retry::Never,
                ),
                Some(_) if status.starts_with("HTTP/") => SendError::new(
                    format!("{name} does not connect to {to}: it answered {}", self.shared.secrets.excerpt(&status)),
                    Retry::Soon,
                ),
                _ => SendError::new(format!("{name} does not connect to {to}: {}", error_message(&error)), Retry::Soon),
            }
        })
    }

    /// There was no answer, because of this.
    pub(crate) fn unreachable(
        &self,
        secrets: &Secrets,
        error: &(dyn std::error::Error + 'static),
    ) -> SendError {
        let to = &self.shared.endpoint.name;
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<SendError>() {
                return error.clone();
            }
            cause = error.source();
        }
        #[cfg(feature = "otlp-tls")]
        if let Some(alert) = self.notes.take_alert() {
            return SendError::new(format!("{to} {}", sentence(&alert)), Retry::Never);
        }
        let why = secrets.excerpt(&error_message(error));
        let first = self.notes.first();
        match foreign(&first, self.shared.is_http2) {
            Some(problem) => SendError::new(format!("{to} {problem} ({why})"), Retry::Never),
            None if first.is_empty() => {
                let hint = match self.shared.endpoint.is_https() {
                    true => "if it expects the other protocol, change OTEL_EXPORTER_OTLP_PROTOCOL",
                    false => "if it expects TLS, begin the endpoint with https://",
                };
                SendError::new(
                    format!("{to}: {why}; it closed the connection without an answer; {hint}"),
                    Retry::Soon,
                )
            }
            None => SendError::new(format!("{to}: {why}"), Retry::Soon),
        }
    }
}

impl Shared {
    /// HTTP/1.1 without TLS is forwarded, as curl has it. Everything else goes through a tunnel.
    fn forwarding_proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| !self.is_http2 && !self.endpoint.is_https())
    }
}

/// Recognises another protocol by its first bytes.
fn foreign(first: &[u8], is_http2: bool) -> Option<&'static str> {
    match first {
        [0x15, 0x03, ..] => Some("expects TLS; begin the endpoint with https://"),
        [b'H', b'T', b'T', b'P', b'/', b'1', ..] if is_http2 => Some(
            "answers in HTTP/1.1, which is not gRPC; set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or use its port for gRPC, as a rule 4317",
        ),
        // The settings that an HTTP/2 server begins with.
        [0, _, _, 4, ..] if !is_http2 => Some(
            "speaks HTTP/2 only, hence gRPC; set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use its port for HTTP, as a rule 4318",
        ),
        [0, _, _, 4, ..] if is_http2 => None,
        [b'H', b'T', b'T', b'P', ..] | [] => None,
        _ => Some("answers with something that is neither HTTP nor gRPC; is this the port of a collector?"),
    }
}

fn unconnected(to: &str, error: &(dyn std::error::Error + 'static)) -> SendError {
    SendError::new(format!("{to}: no connection: {}", error_message(error)), Retry::Soon)
}

#[cfg(unix)]
async fn unix(path: &std::path::Path, to: &str, notes: &Notes) -> Result<Stream, SendError> {
    let stream = tokio::net::UnixStream::connect(path).await.map_err(|error| unconnected(to, &error))?;
    Ok(Stream::new(hyper_util::rt::TokioIo::new(stream), notes.clone()))
}

#[cfg(not(unix))]
async fn unix(_: &std::path::Path, to: &str, _: &Notes) -> Result<Stream, SendError> {
    Err(unconnected(to, &std::io::Error::from(std::io::ErrorKind::Unsupported)))
}

/// A tunnel needs a port.
fn with_port(to: &Uri) -> Uri {
    let port = port_of(to);
    let host = to.host().unwrap_or_default();
    let with_port = Uri::builder()
        .scheme(to.scheme_str().unwrap_or("http"))
        .authority(format!("{host}:{port}"))
        .path_and_query("/");
    with_port.build().unwrap_or_else(|_| to.clone())
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = SendError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, SendError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(self.clone().connect(to))
    }
}

/// Connects to the proxy itself.
#[derive(Clone)]
struct ToProxy {
    connector: Connector,
    notes: Notes,
}

impl ToProxy {
    async fn connect(mut self, proxy: &Proxy) -> Result<Stream, SendError> {
        let name = proxy.name();
        let tcp =
            self.connector.tcp.call(proxy.url.clone()).await.map_err(|error| unconnected(&name, &error))?;
        #[cfg(feature = "otlp-tls")]
        if proxy.is_https()
            && let Some(tls) = &self.connector.shared.tls
        {
            let host = proxy.url.host().unwrap_or_default();
            let stream = Stream::new(tcp, Notes::default());
            let peer = Peer { name: &name, setting: proxy.variable };
            return Ok(Stream::new(tls.handshake(host, b"http/1.1", &peer, stream).await?, self.notes));
        }
        Ok(Stream::new(tcp, self.notes))
    }
}

impl Service<Uri> for ToProxy {
    type Response = Stream;
    type Error = SendError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, SendError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            match this.connector.shared.proxy.clone() {
                Some(proxy) => this.connect(&proxy).await,
                None => Err(SendError::new("there is no proxy", Retry::Never)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_protocol_is_recognised_by_its_first_bytes() {
        let says = |first: &[u8], is_http2, text: &str| {
            let found = foreign(first, is_http2).unwrap();
            assert!(found.contains(text), "{found}");
        };
        says(b"HTTP/1.1 400 Bad Request\r\n", true, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf");
        says(&[0, 0, 6, 4, 0, 0, 0, 0, 0], false, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc");
        for is_http2 in [true, false] {
            says(&[0x15, 0x03, 0x01, 0, 2, 2, 70], is_http2, "https://");
            says(b"SSH-2.0-OpenSSH", is_http2, "port of a collector");
            assert_eq!(foreign(&[], is_http2), None);
        }
        assert_eq!(foreign(b"HTTP/1.1 200 OK", false), None);
        assert_eq!(foreign(&[0, 0, 6, 4, 0], true), None);
    }

    #[test]
    fn a_tunnel_gets_the_port_of_the_scheme() {
        for (to, expected) in [
            ("http://h/x", "http://h:80/"),
            ("https://h", "https://h:443/"),
            ("https://[::1]:7/x?y", "https://[::1]:7/"),
        ] {
            assert_eq!(with_port(&Uri::from_static(to)).to_string(), expected);
        }
    }
}
