//! The public face: which sources are on, and their instruments.

use crate::util::mutex::Mutex;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, SystemTime};

use opentelemetry::metrics::Meter;
use tokio::runtime::Handle;

use crate::collector::Recorder;
use crate::collector::{Collector, Unregistered};
use crate::output::otel::instruments;
use crate::settings::Settings;
use crate::snapshot::{Point, Snapshot};
use crate::source;
use crate::source::table::Source;
use crate::source::tokio::Runtimes;
use crate::util::log;

/// The metrics of this process's allocator, runtimes, tasks and limits, registered on a meter.
///
/// Cheap to clone. Dropping it stops nothing: the instruments go on until [`stop`](Self::stop) is called or the
/// meter's provider is gone.
#[derive(Clone)]
pub struct RuntimeMetrics {
    shared: Arc<Shared>,
    /// For the instruments of sources that come into being later. Only here: a meter that a callback could reach
    /// would keep its provider alive for ever.
    meter: Meter,
}

impl RuntimeMetrics {
    fn new(sources: Vec<Source>, runtimes: Arc<Runtimes>, meter: &Meter) -> Self {
        let shared = Arc::new(Shared { state: Mutex::new(Some(Collector::new(sources))), runtimes });
        let metrics = RuntimeMetrics { shared, meter: meter.clone() };
        metrics.register();
        metrics
    }

    /// Settings other than the default ones.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Watches one more runtime, until it shuts down.
    ///
    /// An empty name leaves the choice to the library: [`Handle::name`], else a number as soon as there is more
    /// than one runtime, or the name and a number if another one has it. A runtime that is watched already is not
    /// watched twice; a name given later wins over none.
    ///
    /// Of a handle whose runtime is gone nothing is reported, nor stalls and delays in a child after `fork`, which does
    /// not have the thread that looks. On the runtime lives a task of ours, which runs ten times a second, and up to two
    /// more for each worker as soon as workers were ever too busy to sleep. They are not counted in `tokio.task.count`;
    /// hooks of [`tokio::runtime::Builder`] see them.
    ///
    /// Tokio does not tell whether a current-thread runtime is being driven. One that was, and is not any more, looks
    /// like one that is blocked, until it is driven again, or its thread ends or reads the metrics itself. Turn
    /// stalls off ([`Builder::probe_interval`]) where `block_on` is called on such a runtime now and then only.
    pub fn watch_runtime(&self, name: impl Into<String>, handle: &Handle) {
        self.shared.runtimes.watch(name.into(), handle);
        self.register();
    }

    /// Reads everything that is on, now.
    pub fn snapshot(&self) -> Snapshot {
        let mut readings = self.shared.with(Collector::sample).unwrap_or_default();
        readings.retain(|reading| !reading.points.is_empty());
        Snapshot { time: SystemTime::now(), readings }
    }

    /// Ends the reporting for good: the instruments stay registered, since OpenTelemetry has no way to remove
    /// them, but report nothing any more. Only the streams of histograms stay, as they are.
    pub fn stop(&self) {
        let state = self.shared.lock().take();
        // Outside the lock: what sources hold has destructors.
        drop(state);
        self.shared.runtimes.forget();
    }

    /// Registers the instruments of all sources that have come into being. Without the lock, because the
    /// provider holds its own lock while it calls back into ours.
    fn register(&self) {
        let new = self.shared.with(Collector::unregistered).unwrap_or_default();
        for Unregistered { index, metric, bounds } in new {
            let shared = Arc::clone(&self.shared);
            match bounds {
                Some(bounds) => shared.record_by(index, instruments::histogram(&self.meter, metric, &bounds)),
                None => instruments::register(&self.meter, metric, move |emit| shared.observe(index, emit)),
            }
        }
    }
}

impl fmt::Debug for RuntimeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        match self.shared.lock().as_ref() {
            Some(state) => state.sources.iter().for_each(|slot| {
                let status = match slot.source.state {
                    Ok(_) if slot.registered => "on",
                    Ok(_) => "nothing to read yet",
                    Err(why) => why,
                };
                map.entry(&slot.source.name, &status);
            }),
            None => {
                map.entry(&"all", &"stopped");
            }
        }
        map.finish()
    }
}

/// What is measured and how. Made by [`RuntimeMetrics::builder`].
#[derive(Debug, Default)]
#[must_use = "nothing is measured before `build`"]
pub struct Builder {
    settings: Settings,
    runtimes: Vec<(String, Handle)>,
}

impl Builder {
    /// Watches this runtime too, as [`RuntimeMetrics::watch_runtime`] does.
    pub fn runtime(mut self, name: impl Into<String>, handle: &Handle) -> Self {
        self.runtimes.push((name.into(), handle.clone()));
        self
    }

    /// Reports each worker thread for itself, told apart by `tokio.worker.index`, instead of their totals. Off by
    /// default, because every worker is a series of every worker metric then.
    pub fn per_worker(mut self, on: bool) -> Self {
        self.settings.per_worker = on;
        self
    }

    /// Reports allocations by size, told apart by `rust.memory.size_class`. Off by default.
    pub fn size_classes(mut self, on: bool) -> Self {
        self.settings.size_classes = on;
        self
    }

    /// Reports `process.*`. On by default; to be turned off where something else reports the same.
    pub fn process(mut self, on: bool) -> Self {
        self.settings.process = on;
        self
    }

    /// Reports `process.disk.io`. Off by default.
    pub fn disk_io(mut self, on: bool) -> Self {
        self.settings.disk_io = on;
        self
    }

    /// Reports `glibc.*`. Off by default, because with many free chunks one reading takes tens of milliseconds,
    /// during which other threads wait for the allocator.
    pub fn glibc(mut self, on: bool) -> Self {
        self.settings.glibc = on;
        self
    }

    /// How often each runtime is probed for its delay and for stalls: every 100 ms by default. Zero turns both
    /// off. One thread does it for the whole process: the shortest interval that somebody has asked for counts.
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.settings.probe_interval = interval;
        self
    }

    /// From when on a worker that makes no progress counts as stalled: 100 ms by default. The shortest threshold
    /// that somebody in the process has asked for counts.
    ///
    /// A stall is noticed, and its time told, to within two probe intervals. One thing cannot be told from a stall: a
    /// worker that runs one and the same task all the time, in polls of several milliseconds each, while the other
    /// workers have nothing to do, since Tokio publishes what such a worker does at every 61st poll only.
    pub fn stall_threshold(mut self, threshold: Duration) -> Self {
        self.settings.stall_threshold = threshold;
        self
    }

    /// From when on a poll of a named task counts as slow: 10 ms by default. One setting for the process; the
    /// last call of this method counts.
    pub fn slow_poll_threshold(mut self, threshold: Duration) -> Self {
        self.settings.slow_poll_threshold = Some(threshold);
        self
    }

    /// How many names of tasks are told apart: 200 by default, the rest is `_OTHER`. One setting for the process;
    /// the last call of this method counts. To be set before the
    /// instruments are registered, for our `view` leaves room for so many; an SDK without it has room for 2000 series of
    /// a metric, of which a name may take three.
    pub fn task_name_limit(mut self, limit: usize) -> Self {
        self.settings.task_name_limit = Some(limit);
        self
    }

    /// Reports `rust.task.scheduled.time`. Off by default, because each named task then has a waker of its own
    /// and each wake reads the clock. One setting for the process; the last call of this method counts.
    pub fn task_scheduled_time(mut self, on: bool) -> Self {
        self.settings.task_scheduled_time = Some(on);
        self
    }

    /// Registers the instruments. Never fails: what cannot be read is not reported, and the `Debug` form of the
    /// result says why.
    pub fn build(self, meter: &Meter) -> RuntimeMetrics {
        let runtimes = Runtimes::new(&self.settings);
        if let Ok(current) = Handle::try_current() {
            runtimes.watch(String::new(), &current);
        }
        for (name, handle) in self.runtimes {
            runtimes.watch(name, &handle);
        }
        RuntimeMetrics::new(source::all(&self.settings, &runtimes), runtimes, meter)
    }
}

/// What the callbacks hold. It lives as long as one of them or a [`RuntimeMetrics`] does, hence no longer than the
/// provider when nobody keeps the latter.
struct Shared {
    /// `None` once stopped.
    state: Mutex<Option<Collector>>,
    runtimes: Arc<Runtimes>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Collector>> {
        self.state.lock()
    }

    /// Does something with the state, unless it is stopped. What there is to tell of it is told without the lock, for
    /// the application's log may want to read the metrics itself.
    fn with<R>(&self, act: impl FnOnce(&mut Collector) -> R) -> Option<R> {
        let mut state = self.lock();
        let result = state.as_mut().map(act);
        let panicked = state.as_mut().map(Collector::panicked).unwrap_or_default();
        drop(state);
        for source in panicked {
            log::warn("a source of runtime metrics panicked and is switched off", source);
        }
        result
    }

    fn record_by(&self, index: usize, recorder: Recorder) {
        self.with(|state| state.record_by(index, recorder));
    }

    /// Hands the points of one metric to a callback. The lock is held until the last is observed: the SDK writes
    /// what one reader's callback observes into the state of every reader, so an older sample must not come after
    /// a newer one. Nothing may unwind from here, since that would end all metrics of the application.
    fn observe(&self, index: usize, emit: &mut dyn FnMut(&Point)) {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            self.with(|state| state.points(index).iter().for_each(emit));
        }));
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider};

    use super::*;

    #[test]
    fn with_the_provider_and_the_last_clone_everything_is_freed() {
        let provider = SdkMeterProvider::builder().with_reader(ManualReader::default()).build();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        let metrics = crate::init_runtime_metrics(&provider.meter("test"));
        let shared = Arc::downgrade(&metrics.shared);
        drop(metrics);
        assert!(shared.upgrade().is_some(), "the callbacks hold it");
        drop(provider);
        assert!(shared.upgrade().is_none());
    }
}
