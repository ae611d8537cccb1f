//! A server of our own.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::routes::MOST_EVENTS;
use crate::util::thread as background;

/// More wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 64;
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// Somewhat longer than all events of a connection take.
const EVENTS_FOR: Duration = Duration::from_secs(MOST_EVENTS as u64 + 60);
const MOST_HEADERS: usize = 64;
const LONGEST_HEADERS: usize = 16 << 10;

/// Why the endpoints are not served.
#[non_exhaustive]
pub enum Error {
    /// Other machines could reach this address.
    NotLoopback(SocketAddr),
    /// The address cannot be resolved or bound to, or there is no thread to be had.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotLoopback(addr) => {
                write!(
                    f,
                    "{addr} can be reached from other machines; to mean it, set `beyond_loopback(true)`"
                )
            }
            Error::Io(error) => write!(f, "the debug endpoints cannot be served: {error}"),
        }
    }
}

/// What `main` prints of an error that it returns.
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

/// The endpoints being served. Dropping it stops nothing.
#[derive(Debug)]
pub struct Server {
    local_addr: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Where.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Ends all connections and closes the port, before it returns.
    pub fn stop(self) {
        // Without a receiver it has ended already.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

pub(super) fn bind(addr: impl ToSocketAddrs, beyond_loopback: bool) -> Result<TcpListener, Error> {
    let addrs: Vec<_> = addr.to_socket_addrs()?.collect();
    match addrs.iter().find(|addr| !addr.ip().is_loopback()) {
        Some(addr) if !beyond_loopback => Err(Error::NotLoopback(*addr)),
        _ => Ok(TcpListener::bind(&*addrs)?),
    }
}

pub(super) fn run(listener: TcpListener, router: Router) -> Result<Server, Error> {
    let local_addr = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let (stop, stopped) = oneshot::channel();
    let run = move |runtime: Runtime| {
        runtime.block_on(async {
            // Without `Server` nobody can stop it, and it goes on.
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
    let thread = background::spawn(thread::Builder::new().name("runtime-debug".into()), run)?;
    Ok(Server { local_addr, stop, thread })
}

async fn accept(listener: TcpListener, router: Router) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let free = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    while let Ok(place) = Arc::clone(&free).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    answer(stream, router).await;
                    drop(place);
                });
            }
            // No descriptor is free, for one: that takes its time.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Answers one request.
async fn answer(stream: TcpStream, router: Router) {
    let events = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&events);
    let router = router.layer(axum::middleware::map_response(move |response: axum::response::Response| {
        let kind = response.headers().get(CONTENT_TYPE);
        told.store(kind.is_some_and(|kind| kind == "text/event-stream"), Ordering::Relaxed);
        async { response }
    }));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_headers(MOST_HEADERS)
        .max_buf_size(LONGEST_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // How a connection failed is the client's affair.
    if timeout(ANSWERED_WITHIN, connection.as_mut()).await.is_err() && events.load(Ordering::Relaxed) {
        let _ = timeout(EVENTS_FOR, connection).await;
    }
}
