//! The stalls that last at present.

use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "profile")]
use crate::profile::{self, StallStack};
use crate::runtime_metrics::RuntimeMetrics;

/// The most stalls that are shown.
const MAX_STALLS: usize = 8;

/// A stall that has not ended.
#[derive(Clone, Debug)]
pub(super) struct Stall {
    pub(super) runtime: Arc<str>,
    pub(super) worker: usize,
    pub(super) cause: &'static str,
    /// The name of the task that the worker polls, if it has one.
    pub(super) task: Option<&'static str>,
    /// The time for which the worker has made no progress.
    pub(super) duration: Duration,
    #[cfg(feature = "profile")]
    pub(super) stack: Option<StallStack>,
}

impl Stall {
    /// Returns the function, file and line that the worker is in. They are looked up after the first call, and known some
    /// moments later.
    pub(super) fn place(&self) -> Option<String> {
        #[cfg(feature = "profile")]
        return self.stack.as_ref()?.known_place();
        #[cfg(not(feature = "profile"))]
        None
    }
}

/// Returns the stalls that last at present, the longest first. Stalls that have ended do not count.
pub(super) fn present(metrics: &RuntimeMetrics) -> Vec<Stall> {
    let now = Instant::now();
    let stalls = metrics.present_stalls().into_iter();
    let mut stalls: Vec<_> = stalls
        .map(|(runtime, stall)| Stall {
            runtime,
            worker: stall.worker,
            cause: stall.cause.name(),
            task: stall.task,
            duration: now.saturating_duration_since(stall.since),
            #[cfg(feature = "profile")]
            stack: profile::stack_of(stall.thread, stall.worker, stall.since),
        })
        .collect();
    stalls.sort_by_key(|stall| std::cmp::Reverse(stall.duration));
    stalls.truncate(MAX_STALLS);
    stalls
}
