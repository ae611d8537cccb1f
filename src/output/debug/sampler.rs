//! Takes a snapshot each second and makes the answers from it.

use std::sync::{Arc, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::watch;

use super::change::Change;
use super::history::History;
use super::page;
use super::stalls::{self, Stall};
use super::vars::Vars;
use crate::output::memstats::Pauses;
use crate::runtime_metrics::RuntimeMetrics;
use crate::snapshot::Snapshot;
use crate::util::log;
use crate::util::mutex::Mutex;
use crate::util::thread as background;

const INTERVAL: Duration = Duration::from_secs(1);

/// Receives each new moment.
pub(super) type Feed = watch::Receiver<Arc<Moment>>;

/// A snapshot and its answers. Each answer is made for the first request and kept for the others.
pub(super) struct Moment {
    snapshot: Arc<Snapshot>,
    stalls: Vec<Stall>,
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

    /// Returns true if the plots are worth drawing again.
    pub(super) fn has_news(&self) -> bool {
        self.shared.history().has_news()
    }

    pub(super) fn vars(&self) -> Bytes {
        let vars =
            Vars { snapshot: &self.snapshot, pauses: &self.pauses, command_line: self.shared.command_line };
        answer(&self.vars, || serde_json::to_vec(&vars).unwrap_or_default())
    }

    /// Returns the part of the page that changes.
    pub(super) fn plots(&self) -> Bytes {
        answer(&self.plots, || page::plots(&self.snapshot, &self.stalls, &self.shared.history()).into())
    }
}

fn answer(cell: &OnceLock<Bytes>, make: impl FnOnce() -> Vec<u8>) -> Bytes {
    cell.get_or_init(|| make().into()).clone()
}

/// Starts the thread, which ends when all receivers are dropped.
pub(super) fn start(metrics: &RuntimeMetrics, command_line: bool) -> Feed {
    let snapshot = metrics.snapshot();
    let mut pauses = Pauses::default();
    pauses.update(&snapshot);
    let sampler = Sampler {
        instant: Instant::now(),
        snapshot: snapshot.into(),
        pauses,
        metrics: metrics.clone(),
        shared: Arc::new(Shared { history: Mutex::default(), command_line }),
    };
    let (sender, feed) = watch::channel(Arc::new(sampler.moment()));
    let run = move || sampler.run(&sender);
    if let Err(error) = background::spawn(thread::Builder::new().name("runtime-history".into()), run) {
        log::warn("could not start a thread; the debug page will not update", &error.to_string());
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
            // Samples that were missed while the machine was asleep are not made up for.
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
        self.pauses.update(&snapshot);
        self.instant = instant;
        self.snapshot = snapshot;
    }

    fn moment(&self) -> Moment {
        Moment {
            snapshot: Arc::clone(&self.snapshot),
            stalls: stalls::present(&self.metrics),
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
    fn the_thread_ends_with_the_last_receiver() {
        let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
        let feed = start(&metrics, false);
        let shared = Arc::downgrade(&feed.borrow().shared);
        assert!(shared.upgrade().is_some());
        drop(feed);
        // The thread wakes once a second.
        while shared.upgrade().is_some() {
            thread::yield_now();
        }
    }

    #[test]
    fn all_answers_of_a_moment_are_the_same() {
        let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
        let feed = start(&metrics, false);
        let moment = Arc::clone(&feed.borrow());
        assert_eq!(moment.json().as_ptr(), moment.json().as_ptr(), "each answer is made once");
        assert_eq!(moment.plots().as_ptr(), moment.plots().as_ptr());
        assert_eq!(moment.vars(), moment.vars());
    }
}
