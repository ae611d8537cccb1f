//! Finds out whether any reader collects what is registered on a meter.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::util::log;

/// Finds out if a meter calls its callbacks.
pub(crate) struct Audience {
    registered: Instant,
    /// Two export intervals.
    patience: Duration,
    /// True if the meter dropped all callbacks, as a no-op meter and a provider without readers do.
    is_absent: AtomicBool,
    has_collected: AtomicBool,
    warned: AtomicBool,
}

impl Audience {
    /// The variable that the SDK's periodic reader goes by, in milliseconds, and its default.
    const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
    const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);

    pub(crate) fn new() -> Self {
        let interval = std::env::var(Self::INTERVAL).ok().and_then(|millis| millis.trim().parse().ok());
        let interval = interval.filter(|millis| *millis > 0).map(Duration::from_millis);
        Audience {
            registered: Instant::now(),
            patience: interval.unwrap_or(Self::DEFAULT_INTERVAL).saturating_mul(2),
            is_absent: AtomicBool::new(false),
            has_collected: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        }
    }

    /// Notes that a callback is called.
    pub(crate) fn note_collection(&self) {
        // A store for each metric would move the cache line from one reader's thread to the other.
        if !self.has_collected.load(Relaxed) {
            self.has_collected.store(true, Relaxed);
        }
    }

    /// Notes whether the meter kept any of the callbacks that were registered.
    pub(crate) fn note_registration(&self, kept: bool) {
        self.is_absent.store(!kept, Relaxed);
        self.check();
    }

    /// Returns why nothing is exported, or `None` if that is not known.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.has_collected.load(Relaxed) {
            None
        } else if self.is_absent.load(Relaxed) {
            Some("the meter has no reader: set the meter provider before the metrics are initialised")
        } else if self.registered.elapsed() > self.patience {
            Some("no reader has collected for two export intervals")
        } else {
            None
        }
    }

    /// Logs the problem, if there is one and it has not been logged yet.
    pub(crate) fn check(&self) {
        if !self.warned.load(Relaxed)
            && let Some(problem) = self.problem()
            && !self.warned.swap(true, Relaxed)
        {
            log::warn("runtime metrics are not exported, only snapshots work", problem);
        }
    }
}
