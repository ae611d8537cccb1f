//! A server that answers with raw bytes, as HTTP servers, proxies and others do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The part of a request that is read before the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReadFirst {
    Whole,
    /// Only the beginning: closing then resets the connection.
    Beginning,
}

/// A server on a free port of 127.0.0.1. It answers each connection once and closes it.
pub struct Scripted {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    /// Starts a server. `answer` gets the request as far as it was read.
    pub fn start(first: ReadFirst, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (kept, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for mut connection in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let request = read(&mut connection, first);
                let answer = answer(&request);
                // A test may look for the request as soon as it has the answer.
                kept.lock().unwrap().push(request);
                let _ = connection.write_all(&answer);
                // The answer must arrive before the reset.
                if first == ReadFirst::Beginning {
                    thread::sleep(Duration::from_millis(50));
                }
            }
        });
        Scripted { address, requests, stop, thread: Some(thread) }
    }

    /// Starts a server with one answer to every request, after the whole request.
    pub fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(ReadFirst::Whole, move |_| answer.clone())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the requests so far, headers and bodies, as far as they were read.
    pub fn requests(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|request| String::from_utf8_lossy(request).into_owned()).collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Formats an answer in HTTP/1.1 that closes the connection.
pub fn answer(status: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    [text.as_bytes(), b"\r\n", body].concat()
}

fn read(connection: &mut TcpStream, first: ReadFirst) -> Vec<u8> {
    let _ = connection.set_read_timeout(Some(Duration::from_secs(5)));
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = if first == ReadFirst::Beginning { 16 } else { buffer.len() };
        match connection.read(&mut buffer[..length]) {
            Ok(read @ 1..) => request.extend_from_slice(&buffer[..read]),
            _ => return request,
        }
        if first == ReadFirst::Beginning || is_whole(&request) {
            return request;
        }
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let length =
        text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
    request.len() >= end + 4 + length.unwrap_or(0)
}
