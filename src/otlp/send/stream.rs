//! Why a receiver ended a TLS connection.
//!
//! With TLS 1.3 it looks at the client's certificate after the client has begun to send. Its alert then comes in while
//! writing fails, and without this nobody would read it: all that one heard would be "broken pipe".

use crate::util::mutex::Mutex;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Uri;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower_service::Service;

use crate::otlp::send::tls::is_refusal;

/// The last alert that came in on any connection of a connector.
#[derive(Clone, Default)]
pub(in crate::otlp) struct Alert(Arc<Mutex<Option<String>>>);

impl Alert {
    pub(in crate::otlp) fn take(&self) -> Option<String> {
        self.0.lock().take()
    }

    fn note(&self, error: &io::Error) {
        if is_refusal(error) {
            *self.0.lock() = Some(error.to_string());
        }
    }
}

/// A connector whose connections note alerts.
#[derive(Clone)]
pub(in crate::otlp) struct Noting<C> {
    pub(in crate::otlp) connector: C,
    pub(in crate::otlp) alert: Alert,
}

impl<C> Service<Uri> for Noting<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
{
    type Response = Stream<C::Response>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connect = self.connector.call(to);
        let alert = self.alert.clone();
        Box::pin(async move { Ok(Stream { inner: connect.await?, alert, failure: None }) })
    }
}

/// A connection that notes alerts.
pub(in crate::otlp) struct Stream<S> {
    inner: S,
    alert: Alert,
    /// Why writing failed, until what came in before is read.
    failure: Option<io::Error>,
}

impl<S: Read + Unpin> Stream<S> {
    /// Writes, and tells of a failure only after having read everything that came in before it.
    fn poll_written<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.failure.is_none() {
            match ready!(write(Pin::new(&mut self.inner), context)) {
                Ok(done) => return Poll::Ready(Ok(done)),
                Err(error) => self.failure = Some(error),
            }
        }
        let mut bytes = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.inner).poll_read(context, buffer.unfilled())) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) => break,
                Err(error) => {
                    self.alert.note(&error);
                    break;
                }
            }
        }
        Poll::Ready(Err(self.failure.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }
}

impl<S: Read + Unpin> Read for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.inner).poll_read(context, buffer));
        Poll::Ready(result.inspect_err(|error| self.alert.note(error)))
    }
}

impl<S: Read + Write + Unpin> Write for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(context, |inner, context| inner.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(context, |inner, context| inner.poll_flush(context))
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
        self.poll_written(context, |inner, context| inner.poll_write_vectored(context, slices))
    }
}

impl<S: Connection> Connection for Stream<S> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}
