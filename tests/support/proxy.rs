//! A TCP relay that counts connections and can silence them while they stay open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

pub struct Proxy {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    bytes: Arc<AtomicU64>,
    /// Connections with a number up to this are silent.
    silent: watch::Sender<usize>,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Proxy {
    pub fn start(to: SocketAddr) -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        let (silent, is_silent) = watch::channel(0);
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, address) = std::sync::mpsc::channel();
        let bytes = Arc::new(AtomicU64::new(0));
        let counters = (Arc::clone(&connections), Arc::clone(&bytes));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = accept(&listener, to, &counters, &is_silent) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Proxy { address: address.recv().unwrap(), connections, bytes, silent, thread: Some((stop, thread)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Returns the number of bytes from clients so far, with the overhead of the protocol.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Silences all present connections. New ones work.
    pub fn leave_half_open(&self) {
        self.silent.send_replace(self.connections());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: &TcpListener,
    to: SocketAddr,
    (connections, bytes): &(Arc<AtomicUsize>, Arc<AtomicU64>),
    silent: &watch::Receiver<usize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
        let (bytes, mut silent) = (Arc::clone(bytes), silent.clone());
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(to).await else { return };
            // The relay must not slow the measured connection down.
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let uncounted = AtomicU64::new(0);
            let both = async {
                tokio::join!(
                    relay(&mut from_client, &mut to_server, &bytes),
                    relay(&mut from_server, &mut to_client, &uncounted)
                )
            };
            tokio::select! {
                _ = both => {}
                _ = silent.wait_for(|last| *last >= number) => {}
            }
            if *silent.borrow() >= number {
                // Reads everything, sends nothing, and stays open.
                let mut buffer = [0; 4096];
                while from_client.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                std::future::pending::<()>().await;
            }
        });
    }
}

/// Copies until one side closes, and then closes the other.
async fn relay(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    bytes: &AtomicU64,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        bytes.fetch_add(read as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
