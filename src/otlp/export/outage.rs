//! Logs one line when exports or points begin to be lost, and one with their number when that is over.

use std::time::Instant;

use crate::otlp::send::outcome::Outcome;
use crate::util::log;

pub(crate) struct Outage {
    endpoint: String,
    /// Exports are lost.
    down: Option<Loss>,
    /// Exports are accepted, but not all of their points.
    rejecting: Option<Loss>,
    /// The last advice, which is logged once.
    advice: Option<String>,
}

struct Loss {
    since: Instant,
    count: u64,
}

impl Loss {
    fn add(loss: &mut Option<Self>, count: u64) -> bool {
        match loss {
            Some(loss) => {
                loss.count = loss.count.saturating_add(count);
                false
            }
            None => {
                *loss = Some(Loss { since: Instant::now(), count });
                true
            }
        }
    }
}

impl Outage {
    pub(crate) fn new(endpoint: String) -> Self {
        Outage { endpoint, down: None, rejecting: None, advice: None }
    }

    pub(crate) fn lost(&mut self, why: &str) {
        if Loss::add(&mut self.down, 1) {
            log::warn("metrics are not delivered; the next line about it comes when they are", why);
        }
    }

    /// An export was left out because the endpoint had asked for quiet.
    pub(crate) fn skipped(&mut self) {
        if let Some(down) = &mut self.down {
            down.count += 1;
        }
    }

    pub(crate) fn delivered(&mut self, outcome: &Outcome) {
        if let Some(Loss { since, count }) = self.down.take() {
            let about =
                format!("{} was out for {:.1?}, {count} exports were lost", self.endpoint, since.elapsed());
            log::info("metrics are delivered again", &about);
        }
        match outcome {
            Outcome::PartlyRejected { points, message } => {
                if Loss::add(&mut self.rejecting, *points) {
                    let about = format!("{} rejects {points} points: {message}", self.endpoint);
                    log::warn(
                        "some metrics are rejected; the next line about it comes when all are accepted",
                        &about,
                    );
                }
            }
            Outcome::Accepted { advice } => {
                if let Some(Loss { since, count }) = self.rejecting.take() {
                    let about = format!("{count} points were rejected in {:.1?}", since.elapsed());
                    log::info("metrics are accepted completely again", &about);
                }
                if advice.is_some() && *advice != self.advice {
                    let about = format!("{} says: {}", self.endpoint, advice.as_deref().unwrap_or_default());
                    log::info("metrics are accepted, with advice", &about);
                    self.advice.clone_from(advice);
                }
            }
        }
    }

    /// Nothing more is exported: adds up what was lost until now.
    pub(crate) fn ended(&mut self) {
        if let Some(Loss { since, count }) = self.down.take() {
            let about =
                format!("{} was out for {:.1?}, {count} exports were lost", self.endpoint, since.elapsed());
            log::warn("metrics were not delivered until the end", &about);
        }
        if let Some(Loss { since, count }) = self.rejecting.take() {
            let about = format!("{count} points were rejected in {:.1?}", since.elapsed());
            log::warn("some metrics were rejected until the end", &about);
        }
    }
}
