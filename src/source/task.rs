//! `rust.task.*`: the counts of named tasks.

use std::collections::HashMap;

use crate::count::allocator;
use crate::count::task::{self, Event, NameOrigin, Totals};
use crate::settings::Settings;
use crate::snapshot::Attributes;
use crate::source::row::{Scope, counter, counter_of_seconds, up_down_counter};
use crate::source::table::{Source, Table};

const TASK_NAME: &str = "rust.task.name";

pub(crate) static TABLE: Table<Tasks> = Table {
    name: "rust.task",
    about: "One set of points for each task name: names that the program gives (`with_task_name`, `with_task_location`, `spawn`, `TaskNameLayer`) and, where the runtime was built with `task_hooks` (under `tokio_unstable`), the source locations of spawns. At most 200 names, unless `task_name_limit` sets another limit; the rest is counted under `_OTHER`. At each moment `rust.task.count` is `rust.task.spawned` minus all of `rust.task.ended`.",
    attributes: &[TASK_NAME],
    rows: &[
        up_down_counter("rust.task.count", "{task}", |tasks: &Tasks, to| {
            to.value(tasks.totals.of(Event::Spawned).saturating_sub(tasks.totals.ended()));
        })
        .description("Live tasks of this name.")
        .origin("`with_task_name`, `with_task_location`, `spawn`: futures that have not completed, panicked or been dropped. `TaskNameLayer`: requests whose response body has not ended. `task_hooks`: tasks spawned and not ended.")
        .advice("Rises and falls with load. A name whose count rises and never falls is a leak, and this is the task that leaks."),
        counter("rust.task.spawned", "{task}", |tasks: &Tasks, to| to.value(tasks.totals.of(Event::Spawned)))
            .description("Tasks of this name since the process started.")
            .origin("Calls of `with_task_name` and the like, requests that reach `TaskNameLayer`, and Tokio's spawn hook under `task_hooks`.")
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
        .origin("Completed: the future returned its result. Cancelled: it was dropped before. Panicked: its poll panicked. Tasks that `task_hooks` counts by location have no outcome, since Tokio does not report it to hooks, unless the runtime's shutdown cancelled them.")
        .advice("Panics are bugs. Timeouts, aborts, clients that disconnect and shutdowns cancel tasks: a rising share of them means that work is begun in vain."),
        counter("rust.task.polls", "{poll}", |tasks: &Tasks, to| to.value(tasks.totals.of(Event::Polls)))
            .description("Polls of tasks of this name.")
            .origin("Counted when a poll ends. A closure of `spawn_blocking` counts as one poll.")
            .advice("Many polls for each spawned task mean that it is woken often for little work, as by a channel that delivers single bytes."),
        counter_of_seconds("rust.task.busy.time", |tasks: &Tasks, to| to.value(seconds(&tasks.totals, Event::BusyTicks)))
            .description("Time inside the polls of tasks of this name, without the time of named tasks within them.")
            .origin("The CPU's time-stamp counter where Linux uses it as its clock, else `Instant`, before and after each poll.")
            .advice("Its rate is the number of workers that this kind of task keeps busy. Divided by `rust.task.polls`, it is the mean time of a poll."),
        counter_of_seconds("rust.task.scheduled.time", |tasks: &Tasks, to| {
            to.value((tasks.origin == NameOrigin::Program).then(|| seconds(&tasks.totals, Event::ScheduledTicks)));
        })
        .opt_in()
        .description("Time that tasks of this name waited for a poll after they were woken.")
        .origin("A waker in front of the executor's: from the first wake since the last poll to the next poll.")
        .advice("Rises when workers are saturated or blocked: `rust.task.slow_polls` by name shows which task blocks them."),
        counter("rust.task.slow_polls", "{poll}", |tasks: &Tasks, to| to.value(tasks.totals.of(Event::SlowPolls)))
            .description("Polls of tasks of this name that took the threshold (10 ms) or longer.")
            .origin("As `rust.task.busy.time`, but with the time of named tasks within the poll, against `slow_poll_threshold`. On Linux, the time in which the thread waited for a CPU (`/proc/thread-self/schedstat`) is subtracted first.")
            .advice("Tasks of this name block the thread or compute for long. Move that work to `spawn_blocking`, or yield."),
        counter("rust.task.stalls", "{stall}", |tasks: &Tasks, to| to.value(tasks.totals.of(Event::Stalls)))
            .description("Stalls of a worker during which a task of this name was polled.")
            .origin("When the watcher thread counts a stall in `tokio.worker.stalls`, it reads which task the worker's thread polls. Of nested names, the innermost counts.")
            .advice("Tasks of this name held a worker for the stall threshold. `profile::stalls` (feature `profile`) shows the line at which they did."),
        counter("rust.task.memory.allocated", "By", |tasks: &Tasks, to| {
            to.value(tasks.memory.then(|| tasks.totals.of(Event::Allocated)));
        })
        .description("Bytes allocated during the polls of tasks of this name, without the bytes of named tasks within them.")
        .origin("The thread's counters in `CountingAllocator` before and after each poll. Reported only where that is the global allocator.")
        .advice("Its rate shows which tasks allocate. Another task may free what this one has allocated, so this is not what it holds."),
        counter("rust.task.memory.allocations", "{allocation}", |tasks: &Tasks, to| {
            to.value(tasks.memory.then(|| tasks.totals.of(Event::Allocations)));
        })
        .description("Allocations during the polls of tasks of this name, without those of named tasks within them.")
        .origin("As `rust.task.memory.allocated`.")
        .advice("If each poll allocates often, the task may be able to reuse a buffer."),
        up_down_counter("rust.task.memory.used", "By", |tasks: &Tasks, to| to.value(tasks.memory_used))
            .description("Bytes in use that were allocated during the polls of tasks of this name, estimated.")
            .origin("The samples of the heap profile (`HeapProfile`, feature `profile`). Reported only while one runs.")
            .advice("A value that rises without end is a leak, and this task allocates what is leaked. `profile::heap` shows the code."),
    ],
};

/// The sample that the rows read: all tasks of one name.
pub(crate) struct Tasks {
    totals: Totals,
    origin: NameOrigin,
    /// True if their memory is counted.
    memory: bool,
    /// `None` while no heap profile runs.
    memory_used: Option<u64>,
}

/// Returns the estimated bytes in use by the number of the task's name. `None` while no heap profile runs.
#[cfg(feature = "profile")]
fn memory_used() -> Option<HashMap<usize, u64>> {
    allocator::is_sampling().then(|| {
        // Samples in libraries that were loaded since the last collection have whole stacks from here on.
        crate::stack::refresh();
        let mut used = HashMap::new();
        allocator::samples::for_each_site(|site| {
            if let Some(task) = site.task {
                *used.entry(task as usize).or_default() += site.in_use().bytes;
            }
        });
        used
    })
}

/// Without the feature there is no heap profile.
#[cfg(not(feature = "profile"))]
fn memory_used() -> Option<HashMap<usize, u64>> {
    None
}

fn seconds(totals: &Totals, ticks: Event) -> f64 {
    task::nanos(totals.of(ticks)) as f64 / 1e9
}

/// Returns the source. Its settings hold for the whole process, since a named future knows no meter.
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
        let used = memory_used();
        let named = names.iter().zip(&totals).enumerate();
        for (number, ((name, origin), totals)) in
            named.filter(|(_, (_, totals))| totals.of(Event::Spawned) > 0)
        {
            let memory_used = used.as_ref().map(|used| used.get(&number).copied().unwrap_or_default());
            let scope = Scope { attributes: Attributes::default().and(TASK_NAME, *name), epoch: 0 };
            visit(&scope, &Tasks { totals: *totals, origin: *origin, memory, memory_used });
        }
    })
}
