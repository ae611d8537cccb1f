//! The settings before the metrics are registered.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tokio::runtime::Handle;

use super::metrics::RuntimeMetrics;
#[cfg(feature = "profile")]
use super::stalls;
use crate::collector::Collector;
use crate::output::otel::audience::Audience;
#[cfg(feature = "profile")]
use crate::profile::{Notifier, OnStall, Stall};
use crate::settings::Settings;
use crate::source;
use crate::source::tokio::Runtimes;

impl RuntimeMetrics {
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
    /// Without a handler, a warning is logged for each distinct stack, at most once a minute. Stacks that differ in the frames
    /// of Tokio's loop are the same. No names are looked up while no `tracing` subscriber takes warnings.
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
    /// that any builder has set. While nothing happens in a runtime, its delay is measured in one interval of five.
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
    /// sign of progress for longer than 61 polls of the slow-poll threshold take: 0.64 s by default. On stable Tokio, a poll
    /// that computes for less than 0.64 s in a task without a name is not noticed. A task that yields after polls longer
    /// than the slow-poll threshold may be counted. The same bound holds for a poll that waits and runs by turns. Until a
    /// worker's thread is known, and always where the system does not report what a thread does, as everywhere but on
    /// Linux, the bound is four times as long.
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
