//! The exporting thread. It is alone in its own Tokio runtime: no export depends on a runtime of the application, and
//! none runs on one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_sdk::metrics::ManualReader;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::otlp::config::settings::Times;
use crate::otlp::error::Error;
use crate::otlp::export::exporter::Exporter;
#[cfg(feature = "otlp-profiles")]
use crate::otlp::export::profiles::Schedule;
use crate::otlp::export::request::Request;
use crate::otlp::send::payload::{Payload, Signal};
use crate::otlp::send::transport::Transport;

pub(crate) struct ExportWorker {
    manual: Arc<ManualReader>,
    exporter: Exporter,
    interval: Duration,
    next: Instant,
    metrics: ResourceMetrics,
    #[cfg(feature = "otlp-profiles")]
    profiles: Option<Schedule>,
}

impl ExportWorker {
    pub(crate) fn new(
        manual: Arc<ManualReader>,
        transport: Transport,
        requests: UnboundedReceiver<Request>,
        times: Times,
        #[cfg(feature = "otlp-profiles")] profiles: Option<Schedule>,
    ) -> Self {
        ExportWorker {
            manual,
            exporter: Exporter::new(Signal::Metrics, transport, requests, times.timeout),
            interval: times.interval,
            next: Instant::now() + times.interval,
            metrics: ResourceMetrics::default(),
            #[cfg(feature = "otlp-profiles")]
            profiles,
        }
    }

    pub(crate) fn run(mut self, runtime: Runtime) {
        // The log of the transport must not become telemetry that has to be exported.
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        // The runtime runs while this thread waits, so that connections are kept in order, but not while it collects: a
        // callback may use a runtime itself.
        while runtime.block_on(self.exporter.wait_until(self.next)) {
            let waiting = std::mem::take(&mut self.exporter.waiting);
            let is_last = waiting.iter().any(|request| request.is_last);
            #[cfg(feature = "otlp-profiles")]
            if let Some(profiles) = self.profiles.as_mut().filter(|_| !is_last) {
                profiles.note_export();
            }
            let result = match self.collect() {
                Ok(()) if self.metrics.scope_metrics().next().is_none() => Ok(()),
                Ok(()) => {
                    let export = self.exporter.export(Payload::Metrics(&self.metrics), &waiting);
                    runtime.block_on(export).map(drop).map_err(|error| Error::Export(error.message))
                }
                Err(error) => Err(error),
            };
            if is_last {
                self.exporter.outage.ended();
            }
            for request in waiting {
                // A caller that no longer listens has given up.
                let _ = request.reply.try_send(result.clone());
            }
            if is_last {
                break;
            }
            self.schedule();
        }
        // A lookup of a name may still be under way, and is not waited for.
        runtime.shutdown_background();
    }

    fn collect(&mut self) -> Result<(), Error> {
        let collect = AssertUnwindSafe(|| self.manual.collect(&mut self.metrics));
        match catch_unwind(collect) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::Export(error.to_string())),
            Err(_) => Err(Error::Export("a callback of an instrument panicked".into())),
        }
        .inspect_err(|error| self.exporter.outage.lost(&error.to_string()))
    }

    /// Keeps the rhythm, without catching up on what was missed.
    fn schedule(&mut self) {
        let now = Instant::now();
        while self.next <= now {
            let behind = now - self.next;
            let missed = behind.as_nanos() / self.interval.as_nanos().max(1) + 1;
            self.next += self.interval.saturating_mul(u32::try_from(missed).unwrap_or(u32::MAX));
        }
    }
}
