//! Endpoints that are no collectors.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The ways in which an endpoint fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing listens at the port.
    Refuses,
    /// Closes the connection at once.
    Closes,
    /// Closes the connection after the first bytes, which resets it.
    ClosesInTheMiddle,
    /// Begins the head of an answer and closes the connection.
    AnswersHalf,
    /// Accepts connections and says nothing.
    IsSilent,
    /// Answers with bytes that are no HTTP.
    SpeaksNonsense,
    /// Answers as a TLS server does to bytes that are no TLS.
    ExpectsTls,
    /// Is reached with TLS, and speaks plain HTTP.
    IsPlain,
}

impl Fault {
    pub const ALL: [Fault; 8] = [
        Fault::Refuses,
        Fault::Closes,
        Fault::ClosesInTheMiddle,
        Fault::AnswersHalf,
        Fault::IsSilent,
        Fault::SpeaksNonsense,
        Fault::ExpectsTls,
        Fault::IsPlain,
    ];
}

/// An endpoint on a free port of 127.0.0.1. A drop closes it with all its connections.
pub struct Broken {
    address: SocketAddr,
    fault: Fault,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Broken {
    pub fn start(fault: Fault) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, stop) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let serve = move || serve(&listener, fault, &stopped);
        // Without a thread, nothing listens.
        let thread = if fault == Fault::Refuses { None } else { Some(thread::Builder::new().spawn(serve)?) };
        Ok(Broken { address, fault, stop, thread })
    }

    pub fn endpoint(&self) -> String {
        let scheme = if self.fault == Fault::IsPlain { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            // Wakes it.
            drop(TcpStream::connect(self.address));
            drop(thread.join());
        }
    }
}

fn serve(listener: &TcpListener, fault: Fault, stop: &AtomicBool) {
    let mut silent = Vec::new();
    for connection in listener.incoming().map_while(Result::ok) {
        if stop.load(SeqCst) {
            return;
        }
        // The client may have gone.
        drop(answer(connection, fault, &mut silent));
    }
}

fn answer(mut connection: TcpStream, fault: Fault, silent: &mut Vec<TcpStream>) -> io::Result<()> {
    /// A fatal alert: an unexpected message.
    const TLS_ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 10];
    connection.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut request = [0; 4096];
    let read = match fault {
        Fault::Closes | Fault::Refuses | Fault::IsSilent => 0,
        Fault::ClosesInTheMiddle => connection.read(&mut request[..16])?,
        _ => connection.read(&mut request)?,
    };
    match fault {
        Fault::Refuses | Fault::Closes | Fault::ClosesInTheMiddle => Ok(()),
        Fault::IsSilent => {
            silent.push(connection);
            Ok(())
        }
        Fault::AnswersHalf => connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-le"),
        Fault::SpeaksNonsense => connection.write_all(&request[..read]),
        Fault::ExpectsTls => connection.write_all(&TLS_ALERT),
        Fault::IsPlain => connection.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
    }
}
