//! The exporting thread. It has a Tokio runtime of its own, which it is alone in: no export depends on a runtime of
//! the application's, and none runs on one.

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

use crate::otlp::error::Error;
use crate::otlp::export::outage::Outage;
use crate::otlp::export::reader::Request;
use crate::otlp::export::retry::Delivery;
use crate::otlp::send::Transport;

pub(in crate::otlp) struct Worker {
    manual: Arc<ManualReader>,
    exporter: Exporter,
    interval: Duration,
    next: Instant,
    metrics: ResourceMetrics,
}

impl Worker {
    pub(in crate::otlp) fn new(
        manual: Arc<ManualReader>,
        transport: Transport,
        requests: UnboundedReceiver<Request>,
        interval: Duration,
        timeout: Duration,
    ) -> Self {
        let outage = Outage::new(transport.name());
        let exporter =
            Exporter { delivery: Delivery::new(transport), requests, asked: Vec::new(), outage, timeout };
        let next = Instant::now() + interval;
        Worker { manual, exporter, interval, next, metrics: ResourceMetrics::default() }
    }

    pub(in crate::otlp) fn run(mut self, runtime: Runtime) {
        // What the transport logs must not become telemetry that has to be transported.
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        // The runtime is driven while we wait, so that connections are kept in order, but not while we collect: a
        // callback may well use a runtime of its own.
        while runtime.block_on(self.exporter.wait_until(self.next)) {
            let asked = std::mem::take(&mut self.exporter.asked);
            let result = match self.collect() {
                Ok(()) => runtime.block_on(self.exporter.export(&self.metrics, &asked)),
                Err(error) => Err(error),
            };
            let last = asked.iter().any(|request| request.last);
            for request in asked {
                // Whoever does not listen any more has given up.
                let _ = request.reply.try_send(result.clone());
            }
            if last {
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

/// What works inside the runtime.
struct Exporter {
    delivery: Delivery,
    requests: UnboundedReceiver<Request>,
    /// Who waits for an export that has not begun yet.
    asked: Vec<Request>,
    outage: Outage,
    timeout: Duration,
}

impl Exporter {
    /// Waits for the time of the next export or for a request. `false` when nobody can ask any more.
    async fn wait_until(&mut self, next: Instant) -> bool {
        if self.asked.is_empty() {
            match timeout_at(next.into(), self.requests.recv()).await {
                Ok(Some(request)) => self.asked.push(request),
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
        // One export answers all who have asked before it.
        while let Ok(request) = self.requests.try_recv() {
            self.asked.push(request);
        }
        true
    }

    async fn export(&mut self, metrics: &ResourceMetrics, asked: &[Request]) -> Result<(), Error> {
        if metrics.scope_metrics().next().is_none() {
            return Ok(());
        }
        let now = Instant::now();
        let mut deadline = now + self.timeout;
        if asked.is_empty() {
            if self.delivery.has_to_wait(now) {
                self.outage.skipped();
                return Ok(());
            }
        } else {
            // A slow callback may have used up the time of some who asked, or of all.
            let Some(first) = asked.iter().map(|request| request.deadline).filter(|time| *time > now).min()
            else {
                return Ok(());
            };
            deadline = deadline.min(first);
        }
        let result = {
            let attempts = self.delivery.deliver(metrics, deadline);
            tokio::pin!(attempts);
            loop {
                tokio::select! {
                    biased;
                    result = &mut attempts => break Some(result),
                    () = sleep_until(deadline.into()) => break None,
                    Some(request) = self.requests.recv() => {
                        // Leaves half of the time to the export that was asked for.
                        let now = Instant::now();
                        deadline = deadline.min(now + request.deadline.saturating_duration_since(now) / 2);
                        self.asked.push(request);
                    }
                }
            }
        };
        match result.unwrap_or_else(|| Err(self.delivery.abandon())) {
            Ok(delivered) => {
                self.outage.delivered(&delivered);
                Ok(())
            }
            Err(failure) => {
                self.outage.lost(&failure.message);
                Err(Error::Export(failure.message))
            }
        }
    }
}
