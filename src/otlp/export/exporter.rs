//! The part of an exporting thread that runs inside its runtime: it waits for requests and delivers exports.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep_until, timeout_at};

use crate::otlp::export::delivery::{Delivery, is_reached};
use crate::otlp::export::outage::Outage;
use crate::otlp::export::request::Request;
use crate::otlp::send::outcome::{Retry, SendError};
use crate::otlp::send::payload::{Payload, Signal};
use crate::otlp::send::stream::Notes;
use crate::otlp::send::transport::Transport;

/// Exports one signal.
pub(crate) struct Exporter {
    delivery: Delivery,
    requests: UnboundedReceiver<Request>,
    /// The requests whose export has not begun yet.
    pub(crate) waiting: Vec<Request>,
    pub(crate) outage: Outage,
    notes: Option<Notes>,
    timeout: Duration,
}

impl Exporter {
    pub(crate) fn new(
        signal: Signal,
        transport: Transport,
        requests: UnboundedReceiver<Request>,
        timeout: Duration,
    ) -> Self {
        Exporter {
            outage: Outage::new(transport.name(), signal),
            notes: transport.notes().cloned(),
            delivery: Delivery::new(transport),
            requests,
            waiting: Vec::new(),
            timeout,
        }
    }

    /// Waits for the time of the next export or for a request. Returns false when there can be no more requests.
    pub(crate) async fn wait_until(&mut self, next: Instant) -> bool {
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

    /// Waits for a time, and collects requests meanwhile. Returns false as soon as one of them is the last.
    #[cfg(feature = "otlp-profiles")]
    pub(crate) async fn pause(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.waiting.iter().any(|request| request.is_last) {
            match timeout_at(end.into(), self.requests.recv()).await {
                Ok(Some(request)) => self.waiting.push(request),
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
        false
    }

    /// Delivers an export for these requests. Returns false if it was left out, because the endpoint asked for quiet. Logs a
    /// loss, and returns its reason.
    pub(crate) async fn export(
        &mut self,
        payload: Payload<'_>,
        requests: &[Request],
    ) -> Result<bool, SendError> {
        let now = Instant::now();
        let mut deadline = now + self.timeout;
        if requests.is_empty() {
            if self.delivery.must_wait(now) {
                self.outage.skipped();
                return Ok(false);
            }
        } else {
            // A slow callback may have used up the time of some requests, or of all.
            let Some(first) =
                requests.iter().map(|request| request.deadline).filter(|time| *time > now).min()
            else {
                let why = "collecting the metrics took longer than they may take";
                self.outage.lost(why);
                return Err(SendError::new(why, Retry::Never));
            };
            deadline = deadline.min(first);
        }
        let is_last = requests.iter().any(|request| request.is_last);
        let result = {
            let attempts = self.delivery.deliver(payload, deadline, is_last);
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
                Ok(true)
            }
            Err(error) => {
                self.outage.failed(&error);
                Err(error)
            }
        }
    }
}
