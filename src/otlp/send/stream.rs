//! Connections that keep what the endpoint said before they broke.
//!
//! An endpoint that does not want a request answers and closes while the request is still being written, and with TLS 1.3
//! it checks the client's certificate only after the client has begun to send. Writing then fails, and the client of
//! hyper would report that failure alone. Here a write that fails counts as done, and its error is reported after
//! everything that came in was read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

use crate::util::mutex::Mutex;

/// A transport of bytes.
pub(crate) trait Io: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Io for T {}

/// The bytes that a connection has received so far. The latest connection of a connector fills it in.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<NotesState>>);

#[derive(Default)]
struct NotesState {
    is_begun: bool,
    is_connected: bool,
    first: Vec<u8>,
    #[cfg(feature = "otlp-tls")]
    alert: Option<rustls::Error>,
}

/// The length of the beginning that is kept, in bytes: enough for a status line.
const MAX_FIRST: usize = 128;

impl Notes {
    /// A connection is being made, and forgets what the one before it has brought.
    pub(crate) fn restarted(&self) {
        let mut state = self.0.lock();
        *state = NotesState { is_begun: true, is_connected: state.is_connected, ..NotesState::default() };
    }

    /// True once the endpoint or its proxy accepted a connection, whatever came of TLS over it.
    pub(crate) fn is_begun(&self) -> bool {
        self.0.lock().is_begun
    }

    /// A connection is made, with TLS where there is any.
    pub(crate) fn connected(&self) {
        self.0.lock().is_connected = true;
    }

    /// True once a connection was made, also if it broke later.
    pub(crate) fn is_connected(&self) -> bool {
        self.0.lock().is_connected
    }

    /// The first bytes that the endpoint sent.
    pub(crate) fn first(&self) -> Vec<u8> {
        self.0.lock().first.clone()
    }

    /// The reason that the endpoint gave for closing a TLS connection.
    #[cfg(feature = "otlp-tls")]
    pub(crate) fn take_alert(&self) -> Option<rustls::Error> {
        self.0.lock().alert.take()
    }

    fn read(&self, bytes: &[u8]) {
        let first = &mut self.0.lock().first;
        let missing = MAX_FIRST.saturating_sub(first.len());
        first.extend(bytes.iter().take(missing));
    }

    #[cfg(feature = "otlp-tls")]
    fn failed(&self, error: &io::Error) {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(alert @ rustls::Error::AlertReceived(_)) = inner {
            self.0.lock().alert = Some(alert.clone());
        }
    }

    #[cfg(not(feature = "otlp-tls"))]
    #[allow(clippy::unused_self, reason = "only TLS has alerts")]
    fn failed(&self, _: &io::Error) {}
}

/// A connection.
pub(crate) struct Stream {
    inner: Box<dyn Io>,
    notes: Notes,
    /// A proxy that forwards requests wants whole URLs in them.
    is_forwarded: bool,
    /// Why writing failed, until everything that came in is read.
    failure: Option<io::Error>,
}

impl Stream {
    pub(crate) fn new(inner: impl Io + 'static, notes: Notes) -> Self {
        Stream { inner: Box::new(inner), notes, is_forwarded: false, failure: None }
    }

    pub(crate) fn forwarded(mut self) -> Self {
        self.is_forwarded = true;
        self
    }

    /// Reports a write that failed as done; the failure is kept.
    fn written<T>(&mut self, result: Poll<io::Result<T>>, all: T) -> Poll<io::Result<T>> {
        match ready!(result) {
            Ok(done) => Poll::Ready(Ok(done)),
            Err(error) => {
                self.notes.failed(&error);
                self.failure = Some(error);
                Poll::Ready(Ok(all))
            }
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; 8 * 1024];
        let length = bytes.len().min(buffer.remaining());
        let mut read = ReadBuf::new(bytes.get_mut(..length).unwrap_or_default());
        let result = ready!(Pin::new(&mut self.inner).poll_read(context, read.unfilled()));
        if let Err(error) = &result {
            self.notes.failed(error);
        }
        let is_end = result.is_ok() && read.filled().is_empty() && length > 0;
        if is_end && let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        self.notes.read(read.filled());
        buffer.put_slice(read.filled());
        Poll::Ready(result)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.failure.is_some() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.written(result, bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failure.is_some() {
            return Poll::Ready(Ok(()));
        }
        let result = Pin::new(&mut self.inner).poll_flush(context);
        self.written(result, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = slices.iter().map(|slice| slice.len()).sum();
        if self.failure.is_some() {
            return Poll::Ready(Ok(all));
        }
        let result = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.written(result, all)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_forwarded)
    }
}
