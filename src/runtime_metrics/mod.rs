//! The public face: the settings, the snapshots and the registration of instruments.

mod shared;
#[cfg(feature = "profile")]
mod stalls;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tokio::runtime::Handle;

use crate::collector::{Collector, Unregistered};
use crate::output::otel::audience::Audience;
use crate::output::otel::instruments;
#[cfg(feature = "profile")]
use crate::profile::{Notifier, OnStall, Stall};
use crate::settings::Settings;
use crate::snapshot::{Reading, Snapshot};
use crate::source;
use crate::source::tokio::{Runtimes, WatchedRuntime};
use crate::util::mutex::Mutex;
use shared::Shared;

/// The metrics of this process's allocator, runtimes, tasks and limits, registered on a meter.
///
/// [`init_runtime_metrics`](crate::init_runtime_metrics) or [`Builder::build`] makes one. A clone is cheap and shares
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
    shared: Arc<Shared>,
    /// Registers the instruments of sources that appear later. Callbacks must not reach the meter, since it would keep
    /// their provider alive forever.
    meter: Meter,
}

impl RuntimeMetrics {
    fn new(collector: Collector, runtimes: Arc<Runtimes>, audience: Arc<Audience>, meter: &Meter) -> Self {
        let shared = Arc::new(Shared { state: Mutex::new(Some(collector)), runtimes, audience });
        let metrics = RuntimeMetrics { shared, meter: meter.clone() };
        metrics.register();
        metrics
    }

    /// Returns a builder, which changes the settings before the instruments are registered.
    ///
    /// ```
    /// use std::time::Duration;
    /// use opentelemetry_instrumentation_runtime::RuntimeMetrics;
    ///
    /// let meter = opentelemetry::global::meter("my-service");
    /// let metrics = RuntimeMetrics::builder()
    ///     .per_worker(true)
    ///     .stall_threshold(Duration::from_millis(250))
    ///     .build(&meter);
    /// # drop(metrics);
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
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
    /// The watcher keeps a probe task on the runtime, which runs ten times a second. At the beginning, and when a worker
    /// has moved to another thread (`block_in_place`), it also runs one task for each worker for a few milliseconds, to
    /// find out which thread is which worker. `tokio.task.count` does not include these tasks, but the hooks of
    /// [`tokio::runtime::Builder`] see them.
    ///
    /// Tokio does not report whether a current-thread runtime is being driven. A runtime that was driven and is not
    /// driven any more looks blocked, until it is driven again, its thread ends, or its thread reads the metrics. If your
    /// program calls `block_on` on such a runtime only now and then, turn stalls off with
    /// [`probe_interval`](Builder::probe_interval).
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
    /// let metrics = init_runtime_metrics(&meter);
    /// HttpServer::new(move || {
    ///     metrics.watch_current_runtime("actix");
    ///     App::new()
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
                return map.finish();
            }
        }
        if let Some(problem) = problem {
            map.entry(&"export", &problem);
        }
        map.finish()
    }
}

/// The settings of a [`RuntimeMetrics`] before it is built.
///
/// [`RuntimeMetrics::builder`] returns one. Each method documents its default.
#[derive(Debug, Default)]
#[must_use = "nothing is measured before `build`"]
pub struct Builder {
    settings: Settings,
    runtimes: Vec<(String, Handle)>,
    #[cfg(feature = "profile")]
    on_stall: OnStall,
}

impl Builder {
    /// Watches a runtime in addition to the current one, as [`RuntimeMetrics::watch_runtime`] does.
    pub fn runtime(mut self, name: impl Into<String>, handle: &Handle) -> Self {
        self.runtimes.push((name.into(), handle.clone()));
        self
    }

    /// Puts an attribute on every series, such as `KeyValue::new("cell", "eu-1")`.
    ///
    /// Texts and integers keep their type; other values are reported as text. A key that the library uses itself is
    /// ignored with a warning in the log, and so is each attribute beyond the sixteenth. Of one key, the last value
    /// counts. JSON and the debug page, which describe one process, leave these attributes out.
    pub fn attribute(mut self, attribute: KeyValue) -> Self {
        self.settings.attributes.push(attribute);
        self
    }

    /// Reports one series per worker thread, with the attribute `tokio.worker.index`, instead of totals.
    ///
    /// Off by default, because each worker then adds a series to each worker metric.
    pub fn per_worker(mut self, on: bool) -> Self {
        self.settings.per_worker = on;
        self
    }

    /// Reports `rust.memory.allocations` by size, with the attribute `rust.memory.size_class`.
    ///
    /// Off by default.
    pub fn size_classes(mut self, on: bool) -> Self {
        self.settings.size_classes = on;
        self
    }

    /// Starts a heap profile with one sample in `mean` bytes on average, as
    /// [`HeapProfile::start`](crate::profile::HeapProfile::start) does. Off by default.
    ///
    /// Needs a global allocator made by [`CountingAllocator::sampled`](crate::CountingAllocator::sampled). If the profile
    /// cannot be started, a warning says why. [`stop`](RuntimeMetrics::stop) does not stop it; it belongs to the process.
    #[cfg(feature = "profile")]
    pub fn heap_profile(mut self, mean: u64) -> Self {
        self.settings.heap_profile = Some(mean);
        self
    }

    /// Calls a function for each stall of a worker, while the stall lasts, with the stack of the worker: when the stall is
    /// noticed, and again after 1 s and 10 s. It is called on the watcher thread, which measures stalls and delays and must
    /// not be held up for long. A panic in it is caught.
    ///
    /// Without a handler, a warning is logged for each distinct stack, at most once a minute.
    ///
    /// ```
    /// use opentelemetry_instrumentation_runtime::RuntimeMetrics;
    ///
    /// let metrics = RuntimeMetrics::builder()
    ///     .on_stall(|stall| eprintln!("{stall}"))
    ///     .build(&opentelemetry::global::meter("my-service"));
    /// # drop(metrics);
    /// ```
    #[cfg(feature = "profile")]
    pub fn on_stall(mut self, handler: impl Fn(&Stall) + Send + Sync + 'static) -> Self {
        self.on_stall = OnStall::new(handler);
        self
    }

    /// Reports `process.*`.
    ///
    /// On by default. Turn it off if another crate reports the same metrics.
    pub fn process(mut self, on: bool) -> Self {
        self.settings.process = on;
        self
    }

    /// Reports `process.disk.io`.
    ///
    /// Off by default.
    pub fn disk_io(mut self, on: bool) -> Self {
        self.settings.disk_io = on;
        self
    }

    /// Reports `glibc.*`.
    ///
    /// Off by default, because with many free chunks one reading takes tens of milliseconds, and other threads wait for
    /// the allocator meanwhile.
    pub fn glibc(mut self, on: bool) -> Self {
        self.settings.glibc = on;
        self
    }

    /// Sets how often the watcher thread probes each runtime for delays and stalls.
    ///
    /// The default is 100 ms. Zero turns both off. A process has one watcher thread, which uses the shortest interval
    /// that any builder has set.
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.settings.probe_interval = interval;
        self
    }

    /// Sets how long a worker may make no progress before it counts as stalled.
    ///
    /// The default is 100 ms. The shortest threshold that any builder of the process has set applies.
    ///
    /// A worker counts as stalled only on evidence, and the attribute `tokio.stall.cause` says which:
    /// - `blocked`: its thread waited in a call for the threshold;
    /// - `running`: it ran one poll for the threshold;
    /// - `starved`: its thread could run and was not given a CPU for the threshold.
    ///
    /// A stall is noticed, and its time measured, to within two probe intervals.
    ///
    /// Stable Tokio does not report when a poll begins. A poll that computes is therefore known for sure only in a task
    /// with a name ([`TaskExt`](crate::TaskExt)), under the hooks of `task_hooks`, or, once it is over, by Tokio's count of
    /// polls (`--cfg tokio_unstable`). Otherwise a worker counts as running one poll when it has used the CPU without a
    /// sign of progress for longer than 61 polls of the slow-poll threshold take: 0.64 s by default. A shorter computation
    /// is missed, and a task that yields after polls longer than the slow-poll threshold may be counted. The same bound
    /// holds for a poll that waits and runs by turns, and where the system does not report the state of a thread, as
    /// everywhere but on Linux.
    ///
    /// `block_in_place` moves a worker to another thread. So a worker is judged once its thread is known and each other
    /// thread of the same name has rested for a moment since, or four times that bound has passed: a computation in
    /// `spawn_blocking` delays the verdict.
    pub fn stall_threshold(mut self, threshold: Duration) -> Self {
        self.settings.stall_threshold = threshold;
        self
    }

    /// Sets how long a poll of a named task may take before it counts as slow.
    ///
    /// The default is 10 ms. The setting applies to the whole process; the last call wins.
    pub fn slow_poll_threshold(mut self, threshold: Duration) -> Self {
        self.settings.slow_poll_threshold = Some(threshold);
        self
    }

    /// Sets the number of distinct task names. Further names are counted under `_OTHER`.
    ///
    /// The default is 200. The setting applies to the whole process; the last call wins. Set it before the instruments
    /// are registered, since the crate's `view` leaves room for this many names. An SDK without the view has room for
    /// 2000 series per metric, and a name may take three.
    pub fn task_name_limit(mut self, limit: usize) -> Self {
        self.settings.task_name_limit = Some(limit);
        self
    }

    /// Reports `rust.task.scheduled.time`.
    ///
    /// Off by default, because each named task then needs its own waker and each wake reads the clock. The setting
    /// applies to the whole process; the last call wins.
    pub fn task_scheduled_time(mut self, on: bool) -> Self {
        self.settings.task_scheduled_time = Some(on);
        self
    }

    /// Registers the instruments on a meter and starts to watch the current runtime and those that were added.
    ///
    /// It never fails. A source that cannot be read reports nothing; the `Debug` output of the result says why.
    pub fn build(self, meter: &Meter) -> RuntimeMetrics {
        #[cfg(feature = "profile")]
        if let Some(mean) = self.settings.heap_profile
            && let Err(error) = crate::profile::HeapProfile::start(mean)
        {
            crate::util::log::warn("the heap profile could not be started", &error.to_string());
        }
        let audience = Arc::new(Audience::new());
        let checked = Arc::clone(&audience);
        #[cfg(feature = "profile")]
        let stalls = Arc::new(Notifier::new(self.on_stall));
        #[cfg(feature = "profile")]
        let ticked = Arc::clone(&stalls);
        let runtimes = Runtimes::new(&self.settings, move || {
            checked.check();
            #[cfg(feature = "profile")]
            ticked.tick();
        });
        #[cfg(feature = "profile")]
        {
            let runtimes = Arc::downgrade(&runtimes);
            stalls.look_at(move || {
                runtimes.upgrade().map(|runtimes| stalls::present(&runtimes)).unwrap_or_default()
            });
        }
        if let Ok(current) = Handle::try_current() {
            runtimes.watch(String::new(), &current);
        }
        for (name, handle) in self.runtimes {
            runtimes.watch(name, &handle);
        }
        let common = source::common::common_attributes(&self.settings.attributes, &source::catalogue());
        let collector = Collector::new(source::all(&self.settings, &runtimes), common);
        RuntimeMetrics::new(collector, runtimes, audience, meter)
    }
}

#[cfg(test)]
mod tests;
