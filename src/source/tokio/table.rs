//! The rows of `tokio.*`: Tokio's metrics of the watched runtimes, and the watcher's.

use super::runtime::{Runtime, WORKER_INDEX};
use crate::source::row::{counter, counter_of_seconds, histogram, up_down_counter};
use crate::source::table::Table;

pub(crate) const RUNTIME_NAME: &str = "tokio.runtime.name";

/// Reads a getter that exists only under `--cfg tokio_unstable`; `None` in another build.
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
    about: "One set of points for each watched runtime. They carry `tokio.runtime.name` once a runtime has a name or \
            more than one is watched. A runtime is watched if the metrics are initialised in it, or if it is given to \
            `watch_runtime`, `watch_current_runtime` or the builder; no other runtime of the process is in these numbers.",
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
        .description("Live tasks.")
        .origin(
            "Tokio: `num_alive_tasks`, without the library's own probes. Tokio does not count the tasks of a `LocalSet` \
             (`spawn_local`), the future of `block_on`, futures that run inside a task (`join!`, `FuturesUnordered`), \
             blocking tasks, and tasks of runtimes that are not watched.",
        )
        .advice("Rises and falls with the load. Rising without falling is a leak of tasks. Name local tasks (`with_task_name`) to see them in `rust.task.count`."),
        up_down_counter("tokio.queue.length", "{task}", |runtime: &Runtime, to| {
            let waiting = runtime.watched.metrics.global_queue_depth();
            to.with("global", waiting.saturating_sub(runtime.watched.waiting_probes()) as u64);
            to.with("local", runtime.sum(|worker| unstable!(runtime.worker_local_queue_depth(worker))));
        })
        .attribute("tokio.queue.type")
        .description("Tasks that wait for a worker.")
        .origin("Tokio: `global_queue_depth`, without the library's own probes; under `tokio_unstable` also `worker_local_queue_depth`.")
        .advice("Above zero for long: the workers have more to do than they can do, or they are blocked."),
        counter_of_seconds("tokio.worker.busy.time", |runtime: &Runtime, to| {
            runtime.each(to, |worker| Some(runtime.watched.metrics.worker_total_busy_duration(worker).as_secs_f64()));
        })
        .opt_in_attribute(WORKER_INDEX)
        .description("Time that workers spent running tasks.")
        .origin("Tokio: `worker_total_busy_duration`.")
        .advice("Its rate divided by the number of workers is the load. It moves when a poll ends, so it stands still during a stall."),
        counter("tokio.worker.parks", "{park}", |runtime: &Runtime, to| {
            runtime.each(to, |worker| Some(runtime.watched.metrics.worker_park_count(worker)));
        })
        .opt_in_attribute(WORKER_INDEX)
        .description("Times that a worker went to sleep because it had nothing to do.")
        .origin("Tokio: `worker_park_count`.")
        .advice("Standing still while there is work: the workers are saturated or blocked."),
        counter("tokio.worker.stalls", "{stall}", |runtime: &Runtime, to| {
            runtime.each_cause(to, |workers, cause| runtime.watched.stalls(workers, cause).map(|(stalls, _)| stalls));
        })
        .attribute("tokio.stall.cause")
        .opt_in_attribute(WORKER_INDEX)
        .description("Times that a worker made no progress for the stall threshold (100 ms by default) or longer, by cause.")
        .origin(
            "The watcher thread. `blocked`: the worker's thread waited in a call. `running`: it ran one poll. `starved`: \
             it could run and was not given a CPU. A present stall counts. On stable Tokio, a poll that computes for less \
             than 0.64 s in a task without a name is not noticed.",
        )
        .advice(
            "`blocked`, `running`: move the blocking call or the computation to `spawn_blocking`. `starved`: the machine \
             or the container has too little CPU; the code is not the cause.",
        ),
        counter_of_seconds("tokio.worker.stall.time", |runtime: &Runtime, to| {
            runtime.each_cause(to, |workers, cause| {
                runtime.watched.stalls(workers, cause).map(|(_, time)| time.as_secs_f64())
            });
        })
        .attribute("tokio.stall.cause")
        .opt_in_attribute(WORKER_INDEX)
        .description("Time that workers spent in such stalls, by cause. It grows while a stall lasts.")
        .origin("The watcher thread, to within two of its intervals, 100 ms each by default.")
        .advice("Its rate is the number of workers that are lost to stalls. If it reaches the number of workers, nothing runs."),
        histogram("tokio.schedule.delay", |runtime: &Runtime, to| to.value(runtime.watched.delays()))
            .description("Time from waking a task until it ran.")
            .origin("A probe, a task of the library that the watcher thread wakes every 100 ms by default, and every 500 ms while nothing happens in the runtime.")
            .advice("How long any task waits for a worker at the moment. Rising with the load: more workers are needed. High without load: stalls."),
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
        .description("Tasks spawned.")
        .origin("Tokio: `spawned_tasks_count`, the library's own probes included.")
        .advice("Its rate is the number of tasks started per second."),
        counter("tokio.task.polls", "{poll}", |runtime: &Runtime, to| {
            to.value(runtime.sum(|worker| unstable!(runtime.worker_poll_count(worker))));
        })
        .unstable()
        .description("Times that workers ran a task.")
        .origin("Tokio: `worker_poll_count`, the library's own probes included.")
        .advice("Busy time divided by it is the length of a poll. High without load: a task that wakes itself."),
        counter("tokio.task.schedules", "{schedule}", |runtime: &Runtime, to| {
            to.with("local", runtime.sum(|worker| unstable!(runtime.worker_local_schedule_count(worker))));
            to.with("remote", unstable!(runtime.remote_schedule_count()));
        })
        .attribute("tokio.schedule.origin")
        .unstable()
        .description("Times that a task was put in a queue, by a worker or from outside the runtime.")
        .origin("Tokio: `worker_local_schedule_count`, `remote_schedule_count`, the library's own probes included.")
        .advice("Mostly remote: other threads feed the runtime, through the one queue that all workers share."),
        counter("tokio.task.forced_yields", "{yield}", |runtime: &Runtime, to| {
            to.value(unstable!(runtime.budget_forced_yield_count()));
        })
        .unstable()
        .description("Times that Tokio made a task yield because it had used up its budget.")
        .origin("Tokio: `budget_forced_yield_count`.")
        .advice("Rising: tasks that always find something ready, such as a loop over a busy socket or channel."),
        counter("tokio.worker.steals", "{task}", |runtime: &Runtime, to| {
            runtime.each(to, |worker| unstable!(runtime.worker_steal_count(worker)));
        })
        .opt_in_attribute(WORKER_INDEX)
        .unstable()
        .description("Tasks that a worker took from another one.")
        .origin("Tokio: `worker_steal_count`; 0 on current-thread runtimes.")
        .advice("Rises when the load is uneven."),
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
        .description("File descriptors that the I/O driver watches.")
        .origin("Tokio: `io_driver_fd_registered_count` minus `io_driver_fd_deregistered_count`.")
        .advice("Follows the number of connections. Rising without falling: connections are not closed."),
        counter("tokio.io_driver.ready_events", "{event}", |runtime: &Runtime, to| {
            to.value(unstable!(runtime.io_driver_ready_count()));
        })
        .unstable()
        .description("Readiness events that the I/O driver has handled.")
        .origin("Tokio: `io_driver_ready_count`.")
        .advice("Its rate is the I/O load."),
        histogram("tokio.task.poll.duration", |runtime: &Runtime, to| to.value(runtime.poll_durations()))
            .unstable()
            .description("Time that one poll took.")
            .origin(
                "Tokio: `poll_time_histogram_bucket_count`, if the runtime was built with \
                 `enable_metrics_poll_time_histogram`. Counts are exact; the sum is taken from the middle of the buckets.",
            )
            .advice("Above a millisecond: a poll that keeps other tasks waiting."),
        histogram("tokio.schedule.duration", |runtime: &Runtime, to| to.value(runtime.schedule_durations()))
            .unstable()
            .description("Time that tasks waited from being woken until they ran.")
            .origin(
                "Tokio: `schedule_latency_histogram_bucket_count`, if the runtime was built with \
                 `enable_metrics_schedule_latency_histogram`. Counts are exact; the sum is taken from the middle of the buckets.",
            )
            .advice("As `tokio.schedule.delay`, but for every task."),
    ],
};
