//! The metrics of a process once they are registered.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::metrics::Meter;
use tokio::runtime::Handle;

use super::shared::Shared;
use crate::collector::{Collector, Unregistered};
use crate::output::otel::audience::Audience;
use crate::output::otel::instruments;
use crate::snapshot::{Reading, Snapshot};
use crate::source::tokio::{Runtimes, WatchedRuntime};
use crate::util::mutex::Mutex;

/// The metrics of this process's allocator, runtimes, tasks and limits, registered on a meter.
///
/// [`init_runtime_metrics`](crate::init_runtime_metrics) or [`Builder::build`](crate::Builder::build) makes one. A clone is cheap and shares
/// everything. A drop stops nothing: the instruments report until [`stop`](Self::stop) is called or the meter's
/// provider is dropped.
///
/// Its `Debug` output says which sources are on, and why the others are off:
///
/// ```
/// let metrics = opentelemetry_instrumentation_runtime::init_runtime_metrics(&opentelemetry::global::meter("example"));
/// assert!(format!("{metrics:?}").contains("CountingAllocator is not the global allocator"));
/// ```
#[derive(Clone)]
pub struct RuntimeMetrics {
    pub(super) shared: Arc<Shared>,
    /// Registers the instruments of sources that appear later. Callbacks must not reach the meter, since it would keep
    /// their provider alive forever.
    meter: Meter,
}

impl RuntimeMetrics {
    pub(super) fn new(
        collector: Collector,
        runtimes: Arc<Runtimes>,
        audience: Arc<Audience>,
        meter: &Meter,
    ) -> Self {
        let shared = Arc::new(Shared { state: Mutex::new(Some(collector)), runtimes, audience });
        let metrics = RuntimeMetrics { shared, meter: meter.clone() };
        metrics.register();
        metrics
    }

    /// Watches one more runtime until it shuts down.
    ///
    /// With an empty name the library uses [`Handle::name`]. If the runtime has no name either, it gets a number as soon
    /// as there is more than one runtime. If another runtime has the same name, a number is appended. A runtime is never
    /// watched twice; a second call can name a runtime that has no name yet.
    ///
    /// A runtime that has shut down reports nothing. A child process after `fork` reports no stalls and delays, since it
    /// does not have the watcher thread.
    ///
    /// The watcher keeps a probe task on the runtime, which runs ten times a second, twice while nothing happens. At the beginning, and when a worker
    /// has moved to another thread (`block_in_place`), it also runs one task for each worker for a few milliseconds, to
    /// find out which thread is which worker. `tokio.task.count` does not include these tasks, but the hooks of
    /// [`tokio::runtime::Builder`] see them.
    ///
    /// Tokio does not report whether a current-thread runtime is being driven. A runtime that was driven and is not
    /// driven any more looks blocked, until it is driven again, its thread ends, or its thread reads the metrics. If your
    /// program calls `block_on` on such a runtime only now and then, turn stalls off with
    /// [`probe_interval`](crate::Builder::probe_interval).
    ///
    /// ```
    /// use opentelemetry_instrumentation_runtime::init_runtime_metrics;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let metrics = init_runtime_metrics(&opentelemetry::global::meter("my-service"));
    /// let io = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    /// metrics.watch_runtime("io", io.handle());
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch_runtime(&self, name: impl Into<String>, handle: &Handle) {
        self.shared.runtimes.watch(name.into(), handle);
        self.register();
    }

    /// Watches the runtime that the calling thread is in, until it shuts down. Outside a runtime it does nothing.
    ///
    /// Frameworks that start a runtime for each of their threads need one call on each of them, since a runtime is seen
    /// only if it is watched. With actix-web the factory of `HttpServer::new` runs once on each worker:
    ///
    /// ```ignore
    /// let metrics = init_runtime_metrics(&telemetry.meter());
    /// HttpServer::new(move || {
    ///     metrics.watch_current_runtime("actix");
    ///     App::new().service(order)
    /// })
    /// ```
    ///
    /// The second runtime of that name is reported as `actix-2`, and so on. `examples/runtime_per_worker.rs` shows the
    /// pattern with Tokio alone, and tasks of a `LocalSet`.
    ///
    /// ```
    /// use opentelemetry_instrumentation_runtime::init_runtime_metrics;
    ///
    /// let metrics = init_runtime_metrics(&opentelemetry::global::meter("my-service"));
    /// tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    ///     metrics.watch_current_runtime("main");
    ///     assert_eq!(&*metrics.runtimes()[0].name, "main");
    /// });
    /// assert!(metrics.runtimes().is_empty(), "it has shut down");
    /// ```
    pub fn watch_current_runtime(&self, name: impl Into<String>) {
        if let Ok(current) = Handle::try_current() {
            self.watch_runtime(name, &current);
        }
    }

    /// Returns the runtimes that are watched and have not shut down, in the order in which they were added.
    ///
    /// A runtime that is not in this list is in none of the metrics `tokio.*`.
    pub fn runtimes(&self) -> Vec<WatchedRuntime> {
        self.shared.runtimes.list()
    }

    /// Reads all sources that are on and returns their values.
    ///
    /// It works without a meter provider. It does not affect the collections of OpenTelemetry.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.audience.check();
        let mut readings = self.shared.with(Collector::sample).unwrap_or_default();
        readings.retain(|reading| !reading.points.is_empty());
        Snapshot { time: SystemTime::now(), readings }
    }

    /// Reads one metric by its name, such as `rust.memory.used`. Only the source that it belongs to is read, so that this
    /// costs less than a [`snapshot`](Self::snapshot).
    ///
    /// Returns `None` for a metric that does not exist, is off or has no value here, and after [`stop`](Self::stop).
    ///
    /// ```
    /// # let metrics = opentelemetry_instrumentation_runtime::init_runtime_metrics(&opentelemetry::global::meter("x"));
    /// let tasks = metrics.read("tokio.task.count");
    /// assert!(tasks.is_none(), "no runtime is watched here");
    /// ```
    pub fn read(&self, name: &str) -> Option<Reading> {
        self.shared.with(|state| state.read(name)).flatten()
    }

    /// Returns the stalls that last at present, with the names of their runtimes.
    #[cfg(feature = "debug")]
    pub(crate) fn present_stalls(&self) -> Vec<(Arc<str>, crate::watch::PresentStall)> {
        self.shared.runtimes.present_stalls()
    }

    /// Stops the reporting permanently, for all clones.
    ///
    /// The instruments stay registered, since OpenTelemetry cannot remove them, but report nothing more. Streams of
    /// histograms remain with their last values.
    pub fn stop(&self) {
        let state = self.shared.lock().take();
        // Outside the lock, since sources have destructors.
        drop(state);
        self.shared.runtimes.stop();
    }

    /// Registers the instruments of all sources that have appeared. It holds no lock meanwhile, because the provider
    /// holds its own lock while its callbacks take ours.
    fn register(&self) {
        let new = self.shared.with(Collector::unregistered).unwrap_or_default();
        // Each callback holds one. A meter that never calls back drops them.
        let kept = Arc::new(());
        let mut registered = 0;
        for Unregistered { index, metric, bounds } in new {
            let shared = Arc::clone(&self.shared);
            match bounds {
                Some(bounds) => shared.record_by(index, instruments::histogram(&self.meter, metric, &bounds)),
                None => {
                    let kept = Arc::clone(&kept);
                    registered += 1;
                    instruments::register(&self.meter, metric, move |emit| {
                        let _ = &kept;
                        shared.observe(index, emit);
                    });
                }
            }
        }
        if registered > 0 {
            self.shared.audience.note_registration(Arc::strong_count(&kept) > 1);
        }
    }
}

impl fmt::Debug for RuntimeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        let problem = self.shared.audience.problem();
        match self.shared.lock().as_ref() {
            Some(state) => state.sources.iter().for_each(|entry| {
                let status = match entry.source.state {
                    Ok(_) if entry.registered => "on",
                    Ok(_) => "nothing to read yet",
                    Err(why) => why,
                };
                map.entry(&entry.source.name, &status);
            }),
            None => {
                map.entry(&"all", &"stopped");
                return map.finish();
            }
        }
        if let Some(problem) = problem {
            map.entry(&"export", &problem);
        }
        map.finish()
    }
}
