//! A proxy for HTTP that forwards requests and makes tunnels, over TLS or not.

#![allow(dead_code, reason = "each test program has use for a part of it")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A proxy on a free port of 127.0.0.1. It connects every host name to one host, and keeps the heads of requests.
pub(crate) struct HttpProxy {
    address: SocketAddr,
    scheme: &'static str,
    heads: Arc<Mutex<Vec<String>>>,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// The answer to a request.
#[derive(Clone, Copy)]
pub(crate) enum Behaviour {
    Connect(SocketAddr),
    /// Answers with this status.
    Refuse(&'static str),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl HttpProxy {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        Self::with(behaviour, None)
    }

    /// Starts a proxy that clients reach over TLS, with the certificate and the key in these PEM files.
    pub(crate) fn over_tls(behaviour: Behaviour, certificate: &str, key: &str) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        Self::with(behaviour, Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn with(behaviour: Behaviour, tls: Option<TlsAcceptor>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&heads);
        let (bound, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                let accept = async {
                    while let Ok((client, _)) = listener.accept().await {
                        tokio::spawn(serve(client, behaviour, tls.clone(), Arc::clone(&kept)));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        HttpProxy { address: address.recv().unwrap(), scheme, heads, thread: Some((stop, thread)) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the value for the variable of a proxy. The user ends with `@`.
    pub(crate) fn url(&self, user: &str) -> String {
        format!("{}://{user}{}", self.scheme, self.address)
    }

    /// Returns the heads of the requests so far, one for each connection.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn first_head(&self) -> String {
        self.heads().first().expect("the proxy was asked").clone()
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

async fn serve(
    client: TcpStream,
    behaviour: Behaviour,
    tls: Option<TlsAcceptor>,
    heads: Arc<Mutex<Vec<String>>>,
) {
    let mut client: Box<dyn Stream> = match tls {
        // A client that does not trust the certificate goes away.
        Some(tls) => match tls.accept(client).await {
            Ok(client) => Box::new(client),
            Err(_) => return,
        },
        None => Box::new(client),
    };
    let Some(head) = head(&mut client).await else {
        let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        let _ = client.shutdown().await;
        return;
    };
    heads.lock().unwrap().push(head.clone());
    let to = match behaviour {
        Behaviour::Connect(to) => to,
        Behaviour::Refuse(status) => {
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = client.write_all(answer.as_bytes()).await;
            let _ = client.shutdown().await;
            return;
        }
    };
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    let sent = match head.starts_with("CONNECT ") {
        true => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await,
        false => server.write_all(head.as_bytes()).await,
    };
    if sent.is_ok() {
        let _ = client.flush().await;
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

/// Returns `None` if it is not HTTP.
async fn head(client: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match client.read_u8().await {
            // TLS where there is none.
            Ok(byte) if head.is_empty() && !byte.is_ascii_alphabetic() => return None,
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}
