//! Logs one line when exports or their items begin to be lost, and one with their number when that is over.

use std::time::Instant;

use crate::otlp::send::outcome::{Outcome, Retry, SendError};
use crate::otlp::send::payload::Signal;
use crate::util::log;

pub(crate) struct Outage {
    endpoint: String,
    words: &'static Words,
    /// Exports are lost.
    down: Option<Loss>,
    /// Exports are accepted, but not all of their items.
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

/// The messages about a signal.
struct Words {
    items: &'static str,
    lost: &'static str,
    /// `None` if the signal is exported even to an endpoint without its service, since it may get one.
    no_service: Option<&'static str>,
    delivered: &'static str,
    rejecting: &'static str,
    accepted: &'static str,
    advice: &'static str,
    lost_at_end: &'static str,
    rejected_at_end: &'static str,
}

macro_rules! words {
    ($signal:literal, $items:literal, $no_service:expr) => {
        Words {
            items: $items,
            lost: concat!($signal, " are not delivered; the next line about it comes when they are"),
            no_service: $no_service,
            delivered: concat!($signal, " are delivered again"),
            rejecting: concat!(
                "some ",
                $signal,
                " are rejected; the next line about it comes when all are accepted"
            ),
            accepted: concat!($signal, " are accepted completely again"),
            advice: concat!($signal, " are accepted, with advice"),
            lost_at_end: concat!($signal, " were not delivered until the end"),
            rejected_at_end: concat!("some ", $signal, " were rejected until the end"),
        }
    };
}

static METRICS: Words = words!("metrics", "points", None);
#[cfg(feature = "otlp-profiles")]
static PROFILES: Words = words!(
    "profiles",
    "profiles",
    Some("the endpoint has no service for profiles; none are exported until the process starts again")
);

impl Outage {
    pub(crate) fn new(endpoint: String, signal: Signal) -> Self {
        let words = match signal {
            Signal::Metrics => &METRICS,
            #[cfg(feature = "otlp-profiles")]
            Signal::Profiles => &PROFILES,
        };
        Outage { endpoint, words, down: None, rejecting: None, advice: None }
    }

    /// An attempt failed for good.
    pub(crate) fn failed(&mut self, error: &SendError) {
        match self.words.no_service.filter(|_| error.retry == Retry::NoService) {
            Some(no_service) => log::warn(no_service, &error.message),
            None => self.lost(&error.message),
        }
    }

    pub(crate) fn lost(&mut self, why: &str) {
        if Loss::add(&mut self.down, 1) {
            log::warn(self.words.lost, why);
        }
    }

    /// An export was left out because the endpoint had asked for quiet.
    pub(crate) fn skipped(&mut self) {
        if let Some(down) = &mut self.down {
            down.count += 1;
        }
    }

    pub(crate) fn delivered(&mut self, outcome: &Outcome) {
        let words = self.words;
        if let Some(loss) = self.down.take() {
            log::info(words.delivered, &self.exports_lost(&loss));
        }
        match outcome {
            Outcome::PartlyRejected { items, message } => {
                if Loss::add(&mut self.rejecting, *items) {
                    let about = format!("{} rejects {items} {}: {message}", self.endpoint, words.items);
                    log::warn(words.rejecting, &about);
                }
            }
            Outcome::Accepted { advice } => {
                if let Some(loss) = self.rejecting.take() {
                    log::info(words.accepted, &self.items_rejected(&loss));
                }
                if advice.is_some() && *advice != self.advice {
                    let about = format!("{} says: {}", self.endpoint, advice.as_deref().unwrap_or_default());
                    log::info(words.advice, &about);
                    self.advice.clone_from(advice);
                }
            }
        }
    }

    /// Nothing more is exported: adds up what was lost until now.
    pub(crate) fn ended(&mut self) {
        if let Some(loss) = self.down.take() {
            log::warn(self.words.lost_at_end, &self.exports_lost(&loss));
        }
        if let Some(loss) = self.rejecting.take() {
            log::warn(self.words.rejected_at_end, &self.items_rejected(&loss));
        }
    }

    fn exports_lost(&self, Loss { since, count }: &Loss) -> String {
        format!("{} was out for {:.1?}, {count} exports were lost", self.endpoint, since.elapsed())
    }

    fn items_rejected(&self, Loss { since, count }: &Loss) -> String {
        format!("{count} {} were rejected in {:.1?}", self.words.items, since.elapsed())
    }
}
