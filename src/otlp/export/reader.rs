//! The handle to the exporting thread, which the provider and [`Telemetry`](crate::otlp::Telemetry) call from any thread.

use std::process;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, Temporality};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::otlp::config::settings::Times;
use crate::otlp::error::Error;
#[cfg(feature = "otlp-profiles")]
use crate::otlp::export::profiles::Profiles;
use crate::otlp::export::request::Request;
use crate::otlp::export::worker::ExportWorker;
use crate::otlp::send::transport::Transport;
use crate::util::thread as background;

/// A periodic reader. The SDK's own one keeps neither a timeout for its exports nor that of a flush or a shutdown, and
/// logs every failure; this one collects through the SDK's manual reader and does the rest itself.
#[derive(Clone, Debug)]
pub(crate) struct Reader(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    manual: Arc<ManualReader>,
    requests: UnboundedSender<Request>,
    times: Times,
    ended: OnceLock<Result<(), Error>>,
    thread: ThreadId,
    /// A fork has this handle, but not the thread behind it.
    process: u32,
    #[cfg(feature = "otlp-profiles")]
    profiles: Option<Profiles>,
}

impl Reader {
    /// Starts the thread.
    pub(crate) fn start(
        transport: Transport,
        times: Times,
        temporality: Temporality,
        #[cfg(feature = "otlp-profiles")] profiles: Option<Profiles>,
    ) -> Result<Self, Error> {
        let manual = Arc::new(ManualReader::builder().with_temporality(temporality).build());
        let (requests, inbox) = unbounded_channel();
        let worker = ExportWorker::new(
            Arc::clone(&manual),
            transport,
            inbox,
            times,
            #[cfg(feature = "otlp-profiles")]
            profiles.as_ref().map(Profiles::schedule),
        );
        let thread = thread::Builder::new().name("otlp-export".into());
        let thread = background::spawn_with_runtime(thread, move |runtime| worker.run(runtime));
        let thread = thread.map_err(|error| Error::Start(error.to_string()))?.thread().id();
        Ok(Reader(Arc::new(Handle {
            manual,
            requests,
            times,
            ended: OnceLock::new(),
            thread,
            process: process::id(),
            #[cfg(feature = "otlp-profiles")]
            profiles,
        })))
    }

    pub(crate) fn flush(&self) -> Result<(), Error> {
        match self.has_ended() {
            true => Err(Error::Ended),
            false => self.0.refuse_in_callback().and_then(|()| self.0.request(false, self.0.times.timeout)),
        }
    }

    /// A caller that comes while the first one waits gets its result too. A fork has nothing to deliver.
    pub(crate) fn shutdown(&self) -> Result<(), Error> {
        if self.0.is_forked() {
            return Ok(());
        }
        self.0.refuse_in_callback()?;
        self.0.ended.get_or_init(|| self.0.end(self.0.times.shutdown_timeout)).clone()
    }

    /// True if the exporting thread has done what a shutdown asked for, well or not.
    pub(crate) fn has_answered(&self) -> bool {
        self.0.ended.get().is_some_and(|result| !matches!(result, Err(Error::TimedOut(_) | Error::Ended)))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.is_forked() || self.0.ended.get().is_some()
    }
}

impl Handle {
    fn is_forked(&self) -> bool {
        process::id() != self.process
    }

    /// The exporting thread cannot do what a callback asks for: it is waiting for the callback.
    fn refuse_in_callback(&self) -> Result<(), Error> {
        match self.thread == thread::current().id() {
            true => Err(Error::Export("this was called inside a callback of an instrument".into())),
            false => Ok(()),
        }
    }

    /// Exports for the last time. Metrics and profiles share the time; only the metrics decide on the result.
    fn end(&self, timeout: Duration) -> Result<(), Error> {
        #[cfg(feature = "otlp-profiles")]
        let (start, profiles) = {
            let start = Instant::now();
            let end = |profiles: &Profiles| profiles.end(start + timeout.mul_f64(0.95));
            (start, self.profiles.as_ref().map(end))
        };
        let result = self.request(true, timeout);
        #[cfg(feature = "otlp-profiles")]
        if let Some(profiles) = profiles {
            // The thread logs a loss.
            let _ = profiles.recv_timeout(timeout.saturating_sub(start.elapsed()));
        }
        result
    }

    fn request(&self, is_last: bool, timeout: Duration) -> Result<(), Error> {
        let (reply, answer) = sync_channel(1);
        // A little before the caller gives up, so that there is time to report what went wrong.
        let deadline = Instant::now() + timeout.mul_f64(0.95);
        self.requests.send(Request { is_last, deadline, reply }).map_err(|_| Error::Ended)?;
        answer.recv_timeout(timeout).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => Err(Error::TimedOut(timeout)),
            RecvTimeoutError::Disconnected => Err(Error::Ended),
        })
    }
}

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.manual.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.manual.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.flush().map_err(sdk_error)
    }

    /// The SDK does not pass on the timeout of its caller.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.shutdown().map_err(sdk_error)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.manual.temporality(kind)
    }
}

fn sdk_error(error: Error) -> OTelSdkError {
    match error {
        Error::TimedOut(time) => OTelSdkError::Timeout(time),
        Error::Ended => OTelSdkError::AlreadyShutdown,
        other => OTelSdkError::InternalFailure(other.to_string()),
    }
}
