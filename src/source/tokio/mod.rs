//! `tokio.*`: what the watched runtimes say of themselves, and what the watcher sees of them.

mod runtimes;

use std::sync::Arc;
#[cfg(tokio_unstable)]
use std::{ops::Range, time::Duration};

use tokio::runtime::RuntimeFlavor;

use crate::snapshot::{Histogram, Value};
use crate::source::row::{Points, counter, counter_of_seconds, histogram, up_down_counter};
use crate::source::table::{Source, Table};
use crate::watch::Watched;
use runtimes::RUNTIME_NAME;
pub(crate) use runtimes::Runtimes;

const WORKER_INDEX: &str = "tokio.worker.index";

/// How many values of a histogram are recorded in one collection: some 30 ms of work. The rest has to wait.
const MOST_PER_COLLECTION: u64 = 1_000_000;

/// What Tokio tells under `--cfg tokio_unstable` only: nothing in another build.
macro_rules! unstable {
    ($runtime:ident.$getter:ident($($argument:expr)?)) => {{
        #[cfg(tokio_unstable)]
        let value = Some($runtime.watched.metrics.$getter($($argument)?) as u64);
        #[cfg(not(tokio_unstable))]
        let value = {
            let _ = ($runtime, $($argument)?);
            None::<u64>
        };
        value
    }};
}

pub(crate) static TABLE: Table<Runtime> = Table {
    name: "tokio",
    about: "One set of points for each watched runtime. `tokio.runtime.name` is there once a runtime has a name or \
            more than one is watched.",
    attributes: &[RUNTIME_NAME],
    rows: &[
        up_down_counter("tokio.worker.count", "{worker}", |runtime: &Runtime, to| match runtime.parked() {
            Some(parked) => {
                to.with("active", runtime.workers().saturating_sub(parked));
                to.with("parked", parked);
            }
            None => to.value(runtime.workers()),
        })
        .attribute("tokio.worker.state")
        .description("Worker threads of the runtime.")
        .origin("Tokio: `num_workers`; parked by the parity of `worker_park_unpark_count`, on multi-thread runtimes.")
        .advice("Fixed when the runtime is built. All active for long means that the runtime is saturated or blocked."),
        up_down_counter("tokio.task.count", "{task}", |runtime: &Runtime, to| {
            let tasks = runtime.watched.metrics.num_alive_tasks();
            to.value(tasks.saturating_sub(runtime.watched.probes()) as u64);
        })
        .description("Tasks that are alive.")
        .origin("Tokio: `num_alive_tasks`, less our own probes.")
        .advice("Rises with load and falls with it. Rising without falling is a leak of tasks."),
        up_down_counter("tokio.queue.length", "{task}", |runtime: &Runtime, to| {
            let waiting = runtime.watched.metrics.global_queue_depth();
            to.with("global", waiting.saturating_sub(runtime.watched.waiting_probes()) as u64);
            to.with("local", runtime.sum(|worker| unstable!(runtime.worker_local_queue_depth(worker))));
        })
        .attribute("tokio.queue.type")
        .description("Tasks that wait for a worker.")
        .origin("Tokio: `global_queue_depth`, less our own probes; under `tokio_unstable` also `worker_local_queue_depth`.")
        .advice("Above zero for long: there is more to do than the workers can do, or they are blocked."),
        counter_of_seconds("tokio.worker.busy.time", |runtime: &Runtime, to| {
            runtime.each(to, |worker| Some(runtime.watched.metrics.worker_total_busy_duration(worker).as_secs_f64()));
        })
        .opt_in_attribute(WORKER_INDEX)
        .description("Time that workers spent running tasks.")
        .origin("Tokio: `worker_total_busy_duration`.")
        .advice("Its rate over the number of workers is the load. It moves when a poll ends, so it stands still during a stall."),
        counter("tokio.worker.parks", "{park}", |runtime: &Runtime, to| {
            runtime.each(to, |worker| Some(runtime.watched.metrics.worker_park_count(worker)));
        })
        .opt_in_attribute(WORKER_INDEX)
        .description("Times that a worker went to sleep because there was nothing to do.")
        .origin("Tokio: `worker_park_count`.")
        .advice("Standing still while there is work: the workers are saturated or blocked."),
        counter("tokio.worker.stalls", "{stall}", |runtime: &Runtime, to| {
            runtime.each(to, |worker| runtime.watched.stalls(worker).map(|(stalls, _)| stalls));
        })
        .opt_in_attribute(WORKER_INDEX)
        .description("Times that a worker made no progress for as long as the stall threshold, 100 ms by default.")
        .origin(
            "Our watcher thread: the worker does not sleep, what it publishes (`worker_park_unpark_count`, \
             `worker_total_busy_duration`) stands still, and it runs no probe. A present stall counts.",
        )
        .advice("Any: something blocks a worker (a blocking call, a lock, a long computation). Move it to `spawn_blocking`."),
        counter_of_seconds("tokio.worker.stall.time", |runtime: &Runtime, to| {
            runtime.each(to, |worker| runtime.watched.stalls(worker).map(|(_, time)| time.as_secs_f64()));
        })
        .opt_in_attribute(WORKER_INDEX)
        .description("Time that workers spent in such stalls. It grows while one lasts.")
        .origin("Our watcher thread, to within two of its intervals, 100 ms each by default.")
        .advice("Its rate is the number of workers that are lost to stalls. As high as the number of workers: nothing runs."),
        histogram("tokio.schedule.delay", |runtime: &Runtime, to| to.value(runtime.watched.delays()))
            .description("Time from waking a task until it ran.")
            .origin("Our probe, a task that the watcher thread wakes every 100 ms by default.")
            .advice("What every task has to wait at the moment. Rising with the load: more workers are needed. High without load: stalls."),
        up_down_counter("tokio.blocking.thread.count", "{thread}", |runtime: &Runtime, to| {
            let idle = unstable!(runtime.num_idle_blocking_threads());
            let all = unstable!(runtime.num_blocking_threads());
            to.with("active", all.zip(idle).map(|(all, idle)| all.saturating_sub(idle)));
            to.with("idle", idle);
        })
        .attribute("tokio.thread.state")
        .unstable()
        .description("Threads of the pool for blocking work.")
        .origin("Tokio: `num_blocking_threads`, `num_idle_blocking_threads`.")
        .advice("Grows with concurrent `spawn_blocking`, up to `max_blocking_threads`, and shrinks when they idle."),
        up_down_counter("tokio.blocking.queue.length", "{task}", |runtime: &Runtime, to| {
            to.value(unstable!(runtime.blocking_queue_depth()));
        })
        .unstable()
        .description("Tasks that wait for a thread of the pool for blocking work.")
        .origin("Tokio: `blocking_queue_depth`.")
        .advice("Above zero for long: all `max_blocking_threads` are taken."),
        counter("tokio.task.spawned", "{task}", |runtime: &Runtime, to| {
            to.value(unstable!(runtime.spawned_tasks_count()));
        })
        .unstable()
        .description("Tasks that were spawned.")
        .origin("Tokio: `spawned_tasks_count`, our own probes included.")
        .advice("Its rate is how many tasks are started a second."),
        counter("tokio.task.polls", "{poll}", |runtime: &Runtime, to| {
            to.value(runtime.sum(|worker| unstable!(runtime.worker_poll_count(worker))));
        })
        .unstable()
        .description("Times that workers ran a task.")
        .origin("Tokio: `worker_poll_count`, our own probes included.")
        .advice("With busy time: how long a poll takes. High without load: a task that wakes itself."),
        counter("tokio.task.schedules", "{schedule}", |runtime: &Runtime, to| {
            to.with("local", runtime.sum(|worker| unstable!(runtime.worker_local_schedule_count(worker))));
            to.with("remote", unstable!(runtime.remote_schedule_count()));
        })
        .attribute("tokio.schedule.origin")
        .unstable()
        .description("Times that a task was put in a queue, by a worker or from outside of the runtime.")
        .origin("Tokio: `worker_local_schedule_count`, `remote_schedule_count`, our own probes included.")
        .advice("Mostly remote: other threads feed the runtime, through the one queue that all workers share."),
        counter("tokio.task.forced_yields", "{yield}", |runtime: &Runtime, to| {
            to.value(unstable!(runtime.budget_forced_yield_count()));
        })
        .unstable()
        .description("Times that a task was made to yield because it had used up its budget.")
        .origin("Tokio: `budget_forced_yield_count`.")
        .advice("Rising: tasks that always find something ready, such as a loop over a busy socket or channel."),
        counter("tokio.worker.steals", "{task}", |runtime: &Runtime, to| {
            runtime.each(to, |worker| unstable!(runtime.worker_steal_count(worker)));
        })
        .opt_in_attribute(WORKER_INDEX)
        .unstable()
        .description("Tasks that a worker took from another one.")
        .origin("Tokio: `worker_steal_count`; 0 on current-thread runtimes.")
        .advice("Rises when the load is uneven. It is how it is evened out."),
        counter("tokio.worker.steal.operations", "{operation}", |runtime: &Runtime, to| {
            runtime.each(to, |worker| unstable!(runtime.worker_steal_operations(worker)));
        })
        .opt_in_attribute(WORKER_INDEX)
        .unstable()
        .description("Times that a worker took tasks from another one.")
        .origin("Tokio: `worker_steal_operations`; 0 on current-thread runtimes.")
        .advice("With `tokio.worker.steals`: how many tasks are taken at a time."),
        counter("tokio.worker.noops", "{noop}", |runtime: &Runtime, to| {
            runtime.each(to, |worker| unstable!(runtime.worker_noop_count(worker)));
        })
        .opt_in_attribute(WORKER_INDEX)
        .unstable()
        .description("Times that a worker woke up and found nothing to do.")
        .origin("Tokio: `worker_noop_count`.")
        .advice("High beside `tokio.worker.parks`: workers are woken in vain."),
        counter("tokio.queue.overflows", "{overflow}", |runtime: &Runtime, to| {
            to.value(runtime.sum(|worker| unstable!(runtime.worker_overflow_count(worker))));
        })
        .unstable()
        .description("Times that a worker's queue was full, so that tasks went to the queue that all share.")
        .origin("Tokio: `worker_overflow_count`; 0 on current-thread runtimes.")
        .advice("Rising: bursts of tasks spawned or woken by one worker."),
        up_down_counter("tokio.io_driver.fd.count", "{file_descriptor}", |runtime: &Runtime, to| {
            let registered = unstable!(runtime.io_driver_fd_registered_count());
            let deregistered = unstable!(runtime.io_driver_fd_deregistered_count());
            to.value(registered.zip(deregistered).map(|(came, went)| came.saturating_sub(went)));
        })
        .unstable()
        .description("File descriptors that the runtime waits for.")
        .origin("Tokio: `io_driver_fd_registered_count` less `io_driver_fd_deregistered_count`.")
        .advice("Follows the number of connections. Rising without falling: they are not closed."),
        counter("tokio.io_driver.ready_events", "{event}", |runtime: &Runtime, to| {
            to.value(unstable!(runtime.io_driver_ready_count()));
        })
        .unstable()
        .description("Readiness events that the I/O driver has handled.")
        .origin("Tokio: `io_driver_ready_count`.")
        .advice("Its rate is the I/O load."),
        histogram("tokio.task.poll.duration", |runtime: &Runtime, to| to.value(runtime.poll_durations()))
            .unstable()
            .description("How long workers ran a task without a break.")
            .origin(
                "Tokio: `poll_time_histogram_bucket_count`, where the runtime was built with \
                 `enable_metrics_poll_time_histogram`. Counts are exact; the sum is taken from the middle of the buckets.",
            )
            .advice("Above a millisecond: a poll that keeps other tasks waiting."),
        histogram("tokio.schedule.duration", |runtime: &Runtime, to| to.value(runtime.schedule_durations()))
            .unstable()
            .description("How long tasks waited from being woken until they ran.")
            .origin(
                "Tokio: `schedule_latency_histogram_bucket_count`, where the runtime was built with \
                 `enable_metrics_schedule_latency_histogram`. Counts are exact; the sum is taken from the middle of the buckets.",
            )
            .advice("As `tokio.schedule.delay`, but of every task."),
    ],
};

/// A source of all runtimes that are watched.
pub(crate) fn source(runtimes: &Arc<Runtimes>) -> Source {
    let [any, passing] = [runtimes, runtimes].map(Arc::clone);
    let runtimes = Arc::clone(runtimes);
    TABLE
        .on(false, move |visit| runtimes.visit(visit))
        .when(move || !any.is_empty())
        .replayed_by(move |metric, record| passing.pass_on(metric, MOST_PER_COLLECTION, record))
}

/// A runtime and how it is to be reported.
pub(crate) struct Runtime {
    watched: Arc<Watched>,
    per_worker: bool,
}

impl Runtime {
    fn workers(&self) -> u64 {
        self.watched.metrics.num_workers() as u64
    }

    /// How many workers sleep. A current-thread runtime does not tell.
    fn parked(&self) -> Option<u64> {
        (self.watched.handle.runtime_flavor() == RuntimeFlavor::MultiThread).then(|| {
            let parked = |worker: &usize| self.watched.metrics.worker_park_unpark_count(*worker) % 2 == 1;
            (0..self.watched.metrics.num_workers()).filter(parked).count() as u64
        })
    }

    /// One point for each worker, or one for all. What cannot be read of a worker cannot be read of any.
    fn each<T: Into<Value> + std::iter::Sum>(
        &self,
        to: &mut Points<'_, T>,
        read: impl Fn(usize) -> Option<T>,
    ) {
        if self.per_worker {
            let workers = 0..self.watched.metrics.num_workers();
            workers.for_each(|worker| to.at(WORKER_INDEX, worker as i64, read(worker)));
        } else {
            to.value(self.sum(read));
        }
    }

    /// The total of all workers.
    fn sum<T: std::iter::Sum>(&self, read: impl Fn(usize) -> Option<T>) -> Option<T> {
        (0..self.watched.metrics.num_workers()).map(read).sum()
    }
}

#[cfg(tokio_unstable)]
impl Runtime {
    fn poll_durations(&self) -> Option<Histogram> {
        let tokio = &self.watched.metrics;
        tokio.poll_time_histogram_enabled().then(|| {
            self.histogram(
                tokio.poll_time_histogram_num_buckets(),
                |bucket| tokio.poll_time_histogram_bucket_range(bucket),
                |worker, bucket| tokio.poll_time_histogram_bucket_count(worker, bucket),
            )
        })
    }

    fn schedule_durations(&self) -> Option<Histogram> {
        let tokio = &self.watched.metrics;
        tokio.schedule_latency_histogram_enabled().then(|| {
            self.histogram(
                tokio.schedule_latency_histogram_num_buckets(),
                |bucket| tokio.schedule_latency_histogram_bucket_range(bucket),
                |worker, bucket| tokio.schedule_latency_histogram_bucket_count(worker, bucket),
            )
        })
    }

    /// The last bucket is open: what is in it counts as its lower bound.
    fn histogram(
        &self,
        buckets: usize,
        range: impl Fn(usize) -> Range<Duration>,
        count: impl Fn(usize, usize) -> u64,
    ) -> Histogram {
        let workers = 0..self.watched.metrics.num_workers();
        let last = buckets.saturating_sub(1);
        let ends = (0..last).map(|bucket| range(bucket).end.as_secs_f64());
        let counts: Vec<u64> =
            (0..buckets).map(|bucket| workers.clone().map(|worker| count(worker, bucket)).sum()).collect();
        let middle = |bucket: usize| match range(bucket) {
            Range { start, .. } if bucket == last => start.as_secs_f64(),
            Range { start, end } => (start.as_secs_f64() + end.as_secs_f64()) / 2.0,
        };
        let sum = counts.iter().enumerate().map(|(bucket, count)| middle(bucket) * *count as f64).sum();
        Histogram { bounds: ends.collect(), counts, sum }
    }
}

#[cfg(not(tokio_unstable))]
impl Runtime {
    fn poll_durations(&self) -> Option<Histogram> {
        None
    }

    fn schedule_durations(&self) -> Option<Histogram> {
        None
    }
}
