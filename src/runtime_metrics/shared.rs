//! The state that all clones of `RuntimeMetrics` and all callbacks share.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard};

use crate::collector::{Collector, Recorder};
use crate::output::otel::audience::Audience;
use crate::snapshot::Point;
use crate::source::tokio::Runtimes;
use crate::util::log;
use crate::util::mutex::Mutex;

/// The state shared by all clones and callbacks. It lives as long as one of them does: no longer than the provider if
/// the application keeps no [`RuntimeMetrics`].
pub(super) struct Shared {
    /// `None` after `stop`.
    pub(super) state: Mutex<Option<Collector>>,
    pub(super) runtimes: Arc<Runtimes>,
    pub(super) audience: Arc<Audience>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Collector>> {
        self.state.lock()
    }

    /// Runs `act` on the collector, unless it is stopped. Warnings are logged after the lock is released, since the
    /// application's log may read the metrics.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Collector) -> R) -> Option<R> {
        let mut state = self.lock();
        let result = state.as_mut().map(act);
        drop(state);
        log::warn_of_kept();
        result
    }

    pub(super) fn record_by(&self, index: usize, recorder: Recorder) {
        self.with(|state| state.record_by(index, recorder));
    }

    /// Passes the points of one metric to a callback.
    ///
    /// The lock is held until the last point is observed. The SDK writes the observations of one reader's callback into
    /// the state of every reader, so an older sample must not follow a newer one. No panic may leave this function,
    /// since it would end all metrics of the application.
    pub(super) fn observe(&self, index: usize, emit: &mut dyn FnMut(&Point)) {
        self.audience.note_collection();
        let _ = catch_unwind(AssertUnwindSafe(|| {
            self.with(|state| state.points(index).iter().for_each(emit));
        }));
    }
}
