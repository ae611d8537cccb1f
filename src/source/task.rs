//! `rust.task.*`: what is counted of named tasks.

use crate::count::allocator;
use crate::count::task::{self, Event, NameOrigin, Totals};
use crate::settings::Settings;
use crate::snapshot::Attributes;
use crate::source::row::{Scope, counter, counter_of_seconds, up_down_counter};
use crate::source::table::{Source, Table};

const TASK_NAME: &str = "rust.task.name";

pub(crate) static TABLE: Table<Tasks> = Table {
    name: "rust.task",
    about: "One set of points for each name that was given to a future by `with_task_name` and, where the runtime was \
            built with `task_hooks` (under `tokio_unstable`), for each place at which a task was spawned. At most 200 \
            names, unless `task_name_limit` says otherwise; the rest is counted under `_OTHER`. At each moment \
            `rust.task.spawned` less all of `rust.task.ended` is `rust.task.count`.",
    attributes: &[TASK_NAME],
    rows: &[
        up_down_counter("rust.task.count", "{task}", |tasks: &Tasks, to| {
            to.value(tasks.totals.of(Event::Spawned).saturating_sub(tasks.totals.ended()));
        })
        .description("Tasks of this name that are alive.")
        .origin("`with_task_name`: futures that have neither completed nor panicked nor been dropped. `task_hooks`: tasks spawned and not ended.")
        .advice("Rises and falls with load. A name whose count rises and never falls is a leak, and this is the task that leaks."),
        counter("rust.task.spawned", "{task}", |tasks: &Tasks, to| to.value(tasks.totals.of(Event::Spawned)))
            .description("Tasks of this name since the process started.")
            .origin("Calls of `with_task_name`; `task_hooks`: Tokio's spawn hook.")
            .advice("Its rate is the load that this kind of task answers."),
        counter("rust.task.ended", "{task}", |tasks: &Tasks, to| {
            let known = tasks.origin == NameOrigin::Program;
            for (outcome, end) in [
                ("completed", Event::Completed),
                ("cancelled", Event::Cancelled),
                ("panicked", Event::Panicked),
            ] {
                let count = tasks.totals.of(end);
                to.with(outcome, (known || count > 0).then_some(count));
            }
            let count = tasks.totals.of(Event::Ended);
            to.value((!known || count > 0).then_some(count));
        })
        .attribute("rust.task.outcome")
        .description("Tasks of this name that have ended.")
        .origin("The future returned that it is ready (completed), was dropped before that (cancelled), or its poll panicked. No outcome for tasks that `task_hooks` counts by their place, since Tokio does not tell its hooks, unless the runtime's shutdown cancelled them.")
        .advice("Panics are bugs. Cancellations are timeouts, aborts, clients that have gone and shutdowns: a rising share of them says that work is begun in vain."),
        counter("rust.task.polls", "{poll}", |tasks: &Tasks, to| to.value(tasks.totals.of(Event::Polls)))
            .description("Times that tasks of this name were polled.")
            .origin("Counted by `with_task_name` or Tokio's poll hooks when a poll ends.")
            .advice("Many polls for each task spawned: it is woken often for little, as by a channel that delivers single bytes."),
        counter_of_seconds("rust.task.busy.time", |tasks: &Tasks, to| to.value(seconds(&tasks.totals, Event::BusyTicks)))
            .description("Time inside the polls of tasks of this name, without that of named tasks within them.")
            .origin("The CPU's time-stamp counter where Linux keeps time by it, else `Instant`, before and after each poll.")
            .advice("Its rate is how many workers this kind of task keeps busy. Over `rust.task.polls`, it is the mean time of a poll."),
        counter_of_seconds("rust.task.scheduled.time", |tasks: &Tasks, to| {
            to.value((tasks.origin == NameOrigin::Program).then(|| seconds(&tasks.totals, Event::ScheduledTicks)));
        })
        .opt_in()
        .description("Time that tasks of this name waited for a poll after they were woken.")
        .origin("The waker that `with_task_name` puts in front of the executor's: from the first wake since the last poll to the next poll.")
        .advice("Rises when workers are saturated or held up: compare `rust.task.slow_polls` by name to find by whom."),
        counter("rust.task.slow_polls", "{poll}", |tasks: &Tasks, to| to.value(tasks.totals.of(Event::SlowPolls)))
            .description("Polls of tasks of this name that held the worker for the threshold (10 ms) or longer.")
            .origin("As `rust.task.busy.time`, but with the time of named tasks within the poll, against `slow_poll_threshold`.")
            .advice("Tasks of this name block the thread or compute for long: move that to `spawn_blocking`, or yield."),
        counter("rust.task.stalls", "{stall}", |tasks: &Tasks, to| to.value(tasks.totals.of(Event::Stalls)))
            .description("Stalls of a worker during which a task of this name was polled.")
            .origin("When the watcher thread counts a stall in `tokio.worker.stalls`, it reads which task the worker's thread polls. The innermost name counts.")
            .advice("This task held a worker: `profile::stalls` (feature `profile`) has the line at which it did."),
        counter("rust.task.memory.allocated", "By", |tasks: &Tasks, to| {
            to.value(tasks.memory.then(|| tasks.totals.of(Event::Allocated)));
        })
        .description("Bytes allocated during the polls of tasks of this name, without those of named tasks within them.")
        .origin("The thread's own counters in `CountingAllocator` before and after each poll. No point where that is not the global allocator.")
        .advice("Its rate says who allocates. What a task has allocated may be freed by another one, so that this is not what it holds."),
        counter("rust.task.memory.allocations", "{allocation}", |tasks: &Tasks, to| {
            to.value(tasks.memory.then(|| tasks.totals.of(Event::Allocations)));
        })
        .description("Allocations during the polls of tasks of this name, without those of named tasks within them.")
        .origin("As `rust.task.memory.allocated`.")
        .advice("Many for each poll are worth a look at what the task allocates anew each time."),
    ],
};

/// What the rows read: all tasks of one name.
pub(crate) struct Tasks {
    totals: Totals,
    origin: NameOrigin,
    /// Whether their memory was counted.
    memory: bool,
}

fn seconds(totals: &Totals, ticks: Event) -> f64 {
    task::nanos(totals.of(ticks)) as f64 / 1e9
}

/// All names. The settings are those of the whole process, since a named future knows no meter.
pub(crate) fn source(settings: &Settings) -> Source {
    if let Some(limit) = settings.task_name_limit {
        task::set_name_limit(limit);
    }
    if let Some(threshold) = settings.slow_poll_threshold {
        task::set_slow_poll_threshold(threshold);
    }
    if let Some(on) = settings.task_scheduled_time {
        task::set_scheduled_time(on);
    }
    let (mut names, mut totals) = (Vec::new(), Vec::new());
    TABLE.on(task::scheduled_time(), move |visit| {
        task::totals(&mut names, &mut totals);
        let memory = allocator::is_global();
        let named = names.iter().zip(&totals).filter(|(_, totals)| totals.of(Event::Spawned) > 0);
        for ((name, origin), totals) in named {
            let scope = Scope { attributes: Attributes::default().and(TASK_NAME, *name), epoch: 0 };
            visit(&scope, &Tasks { totals: *totals, origin: *origin, memory });
        }
    })
}
