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
use tokio::time::{sleep_until, timeout_at};

use crate::otlp::config::settings::Times;
use crate::otlp::error::Error;
use crate::otlp::export::delivery::{Delivery, is_reached};
use crate::otlp::export::outage::Outage;
use crate::otlp::export::request::Request;
use crate::otlp::send::stream::Notes;
use crate::otlp::send::transport::Transport;

pub(crate) struct ExportWorker {
    manual: Arc<ManualReader>,
    exporter: Exporter,
    interval: Duration,
    next: Instant,
    metrics: ResourceMetrics,
}

impl ExportWorker {
    pub(crate) fn new(
        manual: Arc<ManualReader>,
        transport: Transport,
        requests: UnboundedReceiver<Request>,
        times: Times,
    ) -> Self {
        let exporter = Exporter {
            outage: Outage::new(transport.name()),
            notes: transport.notes().cloned(),
            delivery: Delivery::new(transport),
            requests,
            waiting: Vec::new(),
            timeout: times.timeout,
        };
        let next = Instant::now() + times.interval;
        ExportWorker { manual, exporter, interval: times.interval, next, metrics: ResourceMetrics::default() }
    }

    pub(crate) fn run(mut self, runtime: Runtime) {
        // The log of the transport must not become telemetry that has to be exported.
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        // The runtime runs while this thread waits, so that connections are kept in order, but not while it collects: a
        // callback may use a runtime itself.
        while runtime.block_on(self.exporter.wait_until(self.next)) {
            let waiting = std::mem::take(&mut self.exporter.waiting);
            let result = match self.collect() {
                Ok(()) => runtime.block_on(self.exporter.export(&self.metrics, &waiting)),
                Err(error) => Err(error),
            };
            let is_last = waiting.iter().any(|request| request.is_last);
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

/// The part of the worker that runs inside the runtime.
struct Exporter {
    delivery: Delivery,
    requests: UnboundedReceiver<Request>,
    /// The requests whose export has not begun yet.
    waiting: Vec<Request>,
    outage: Outage,
    notes: Option<Notes>,
    timeout: Duration,
}

impl Exporter {
    /// Waits for the time of the next export or for a request. Returns false when there can be no more requests.
    async fn wait_until(&mut self, next: Instant) -> bool {
        if self.waiting.is_empty() {
            match timeout_at(next.into(), self.requests.recv()).await {
                Ok(Some(request)) => self.waiting.push(request),
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
        // One export answers all requests that came before it.
        while let Ok(request) = self.requests.try_recv() {
            self.waiting.push(request);
        }
        true
    }

    async fn export(&mut self, metrics: &ResourceMetrics, requests: &[Request]) -> Result<(), Error> {
        if metrics.scope_metrics().next().is_none() {
            return Ok(());
        }
        let now = Instant::now();
        let mut deadline = now + self.timeout;
        if requests.is_empty() {
            if self.delivery.must_wait(now) {
                self.outage.skipped();
                return Ok(());
            }
        } else {
            // A slow callback may have used up the time of some requests, or of all.
            let Some(first) =
                requests.iter().map(|request| request.deadline).filter(|time| *time > now).min()
            else {
                let why = "collecting the metrics took longer than they may take";
                self.outage.lost(why);
                return Err(Error::Export(why.into()));
            };
            deadline = deadline.min(first);
        }
        let is_last = requests.iter().any(|request| request.is_last);
        let result = {
            let attempts = self.delivery.deliver(metrics, deadline, is_last);
            tokio::pin!(attempts);
            loop {
                tokio::select! {
                    biased;
                    result = &mut attempts => break Some(result),
                    () = sleep_until(deadline.into()) => break None,
                    Some(request) = self.requests.recv() => {
                        let now = Instant::now();
                        let left = request.deadline.saturating_duration_since(now);
                        // Leaves half of the time to the export that was asked for. A process that ends waits for no
                        // endpoint that was never there.
                        let share = if request.is_last && !is_reached(self.notes.as_ref()) { Duration::ZERO } else { left / 2 };
                        deadline = deadline.min(now + share);
                        self.waiting.push(request);
                    }
                }
            }
        };
        match result.unwrap_or_else(|| Err(self.delivery.abandon())) {
            Ok(outcome) => {
                self.outage.delivered(&outcome);
                Ok(())
            }
            Err(error) => {
                self.outage.lost(&error.message);
                Err(Error::Export(error.message))
            }
        }
    }
}
