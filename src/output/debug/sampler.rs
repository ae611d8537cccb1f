//! A snapshot each second, and all that is answered from it.

use crate::util::mutex::Mutex;
use std::sync::{Arc, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::watch;

use super::change::Change;
use super::history::History;
use super::page;
use super::vars::{Pauses, Vars};
use crate::runtime_metrics::RuntimeMetrics;
use crate::snapshot::Snapshot;
use crate::util::log;

const INTERVAL: Duration = Duration::from_secs(1);

/// The latest moment, and a signal when there is a new one.
pub(super) type Feed = watch::Receiver<Arc<Moment>>;

/// A snapshot and its answers, each made when the first one asks for it, and for all.
pub(super) struct Moment {
    snapshot: Arc<Snapshot>,
    pauses: Pauses,
    shared: Arc<Shared>,
    json: OnceLock<Bytes>,
    vars: OnceLock<Bytes>,
    plots: OnceLock<Bytes>,
}

struct Shared {
    history: Mutex<History>,
    command_line: bool,
}

impl Shared {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }
}

impl Moment {
    pub(super) fn json(&self) -> Bytes {
        answer(&self.json, || serde_json::to_vec(&*self.snapshot).unwrap_or_default())
    }

    /// Whether the plots are worth drawing again.
    pub(super) fn has_news(&self) -> bool {
        self.shared.history().has_news()
    }

    pub(super) fn vars(&self) -> Bytes {
        let vars =
            Vars { snapshot: &self.snapshot, pauses: &self.pauses, command_line: self.shared.command_line };
        answer(&self.vars, || serde_json::to_vec(&vars).unwrap_or_default())
    }

    /// The part of the page that changes.
    pub(super) fn plots(&self) -> Bytes {
        answer(&self.plots, || page::plots(&self.snapshot, &self.shared.history()).into())
    }
}

fn answer(place: &OnceLock<Bytes>, make: impl FnOnce() -> Vec<u8>) -> Bytes {
    place.get_or_init(|| make().into()).clone()
}

/// Starts the thread, which ends when nobody holds the feed any more.
pub(super) fn start(metrics: &RuntimeMetrics, command_line: bool) -> Feed {
    let sampler = Sampler {
        instant: Instant::now(),
        snapshot: metrics.snapshot().into(),
        pauses: Pauses::default(),
        metrics: metrics.clone(),
        shared: Arc::new(Shared { history: Mutex::default(), command_line }),
    };
    let (sender, feed) = watch::channel(Arc::new(sampler.moment()));
    let run = move || sampler.run(&sender);
    if let Err(error) = thread::Builder::new().name("runtime-history".into()).spawn(run) {
        log::warn("the debug endpoints have no thread and show but one moment", &error.to_string());
    }
    feed
}

struct Sampler {
    metrics: RuntimeMetrics,
    shared: Arc<Shared>,
    instant: Instant,
    snapshot: Arc<Snapshot>,
    pauses: Pauses,
}

impl Sampler {
    fn run(mut self, sender: &watch::Sender<Arc<Moment>>) {
        let mut next = self.instant;
        loop {
            // What was missed while the machine was asleep is not made up for.
            next = (next + INTERVAL).max(Instant::now());
            thread::sleep(next.saturating_duration_since(Instant::now()));
            if sender.is_closed() {
                return;
            }
            self.sample();
            sender.send_replace(Arc::new(self.moment()));
        }
    }

    fn sample(&mut self) {
        let instant = Instant::now();
        let snapshot = Arc::new(self.metrics.snapshot());
        let change = Change { last: &self.snapshot, now: &snapshot, time: instant - self.instant };
        self.shared.history().push(&change);
        self.pauses.follow(&snapshot);
        self.instant = instant;
        self.snapshot = snapshot;
    }

    fn moment(&self) -> Moment {
        Moment {
            snapshot: Arc::clone(&self.snapshot),
            pauses: self.pauses.clone(),
            shared: Arc::clone(&self.shared),
            json: OnceLock::new(),
            vars: OnceLock::new(),
            plots: OnceLock::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_ends_when_nobody_looks_any_more() {
        let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
        let feed = start(&metrics, false);
        let shared = Arc::downgrade(&feed.borrow().shared);
        assert!(shared.upgrade().is_some());
        drop(feed);
        // It wakes up once a second.
        while shared.upgrade().is_some() {
            thread::yield_now();
        }
    }

    #[test]
    fn all_answers_of_a_moment_are_the_same() {
        let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
        let feed = start(&metrics, false);
        let moment = Arc::clone(&feed.borrow());
        assert_eq!(moment.json().as_ptr(), moment.json().as_ptr(), "made once");
        assert_eq!(moment.plots().as_ptr(), moment.plots().as_ptr());
        assert_eq!(moment.vars(), moment.vars());
    }
}
