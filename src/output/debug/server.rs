//! Serves the endpoints on a thread with its own runtime.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::routes::MAX_EVENTS;
use crate::util::mutex::Mutex;
use crate::util::thread as background;

/// Further connections wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than all events of a connection take.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(MAX_EVENTS as u64 + 60);
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;

/// The reason why the endpoints cannot be served.
#[non_exhaustive]
pub enum Error {
    /// Other machines can reach this address.
    NotLoopback(SocketAddr),
    /// The address cannot be resolved or bound, or no thread can be started.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotLoopback(addr) => {
                write!(f, "other machines can reach {addr}; set `allow_remote(true)` to allow that")
            }
            Error::Io(error) => write!(f, "could not serve the debug endpoints: {error}"),
        }
    }
}

/// Reads like `Display`, because `main` prints the error that it returns with `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::NotLoopback(_) => None,
            Error::Io(error) => Some(error),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}

/// A running server of the endpoints. Dropping it does not stop the server.
#[derive(Debug)]
pub struct Server {
    local_addr: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Returns the address and port of the server.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Ends all connections and closes the port. Returns when that is done.
    pub fn stop(self) {
        // Without a receiver the server has already ended.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

pub(super) fn bind(addr: impl ToSocketAddrs, allow_remote: bool) -> Result<TcpListener, Error> {
    let addrs: Vec<_> = addr.to_socket_addrs()?.collect();
    match addrs.iter().find(|addr| !is_loopback(addr)) {
        Some(addr) if !allow_remote => Err(Error::NotLoopback(*addr)),
        _ => Ok(TcpListener::bind(&*addrs)?),
    }
}

/// Returns true if only this machine can reach the address.
pub(super) fn is_loopback(addr: &SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}

pub(super) fn run(listener: TcpListener, router: Router) -> Result<Server, Error> {
    let local_addr = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let (stop, stopped) = oneshot::channel();
    let run = move |runtime: Runtime| {
        runtime.block_on(async {
            // If the `Server` was dropped, the server goes on.
            let stopped = async {
                if stopped.await.is_err() {
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = accept(listener, router) => {}
                () = stopped => {}
            }
        });
    };
    let thread = background::spawn_with_runtime(thread::Builder::new().name("runtime-debug".into()), run)?;
    Ok(Server { local_addr, stop, thread })
}

async fn accept(listener: TcpListener, router: Router) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(permit) = Arc::clone(&free).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    answer(stream, router).await;
                    drop(permit);
                });
            }
            // The process may have no free file descriptor at present.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Answers the one request of a connection.
async fn answer(stream: TcpStream, router: Router) {
    let extra_time = Arc::new(Mutex::new(Duration::ZERO));
    let allowed = Arc::clone(&extra_time);
    let router = router.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
        let allowed = Arc::clone(&allowed);
        async move {
            *allowed.lock() = time_limit(request.uri()).unwrap_or_default();
            let response = next.run(request).await;
            let kind = response.headers().get(CONTENT_TYPE);
            if kind.is_some_and(|kind| kind == "text/event-stream") {
                *allowed.lock() = EVENTS_TIMEOUT;
            }
            response
        }
    }));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // Errors of a connection are the client's.
    if timeout(ANSWER_TIMEOUT, connection.as_mut()).await.is_err() {
        let extra_time = *extra_time.lock();
        let _ = timeout(extra_time, connection).await;
    }
}

/// Returns how long a request may take, if that is longer than [`ANSWER_TIMEOUT`].
fn time_limit(uri: &Uri) -> Option<Duration> {
    #[cfg(feature = "profile")]
    return super::pprof::time_limit(uri);
    #[cfg(not(feature = "profile"))]
    {
        let _ = uri;
        None
    }
}
