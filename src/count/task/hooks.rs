//! Tokio's hooks: they count tasks that the program has not named under the location of their spawn.

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime, TaskMeta};
use tokio::task::Id;

use super::counters::Event;
use super::frames::{FRAMES, Marks, mark};
use super::lookup::{exclude, name_of_location};
use super::name::{NameId, NameOrigin};
use super::own::take_is_own;
use super::spawned::{SPAWNED, Task, UNPOLLED};
use super::thread::count;

/// Counts every task of the runtime that `builder` builds, in the metrics `rust.task.*`, under the location of its spawn:
/// `src/server.rs:88`, and with the crate before it if that is another one.
///
/// Tokio keeps one hook of each kind. This replaces the hooks that the builder has; add your own hooks to the value that it
/// returns, which runs them beside the library's.
///
/// A task that has a name ([`with_task_name`](crate::TaskExt::with_task_name)) is counted under the name alone. The
/// name belongs to the task if the future was named outside the task and is polled when the task is polled first. The
/// named future may be the task's own or lie within a timeout or a span. What a task names later is counted beside it.
/// While a named future waits for its first poll anywhere in the process, a task that is spawned might be the one that
/// has its name, and is not counted before its own first poll.
///
/// Tokio does not report to its hooks how a task ended. `rust.task.ended` has no outcome for these tasks, unless the
/// runtime's shutdown cancelled them. Blocking tasks and those of a `LocalSet` are not counted, since Tokio has no hooks
/// for them.
///
/// The shortest `main` of a service that counts all its tasks, in place of `#[tokio::main]`:
///
/// ```
/// use opentelemetry_instrumentation_runtime::task_hooks;
///
/// # async fn serve() {}
/// fn main() -> std::io::Result<()> {
///     task_hooks(tokio::runtime::Builder::new_multi_thread().enable_all()).build()?.block_on(serve());
///     Ok(())
/// }
/// ```
pub fn task_hooks(builder: &mut Builder) -> TaskHooks<'_> {
    builder.on_task_spawn(spawned).on_before_task_poll(poll_begins).on_after_task_poll(poll_ended);
    builder.on_task_terminate(ended);
    TaskHooks { builder, spawn: None, before_poll: None, after_poll: None, terminate: None }
}

/// The hooks of a runtime that is being built. Made by [`task_hooks`].
pub struct TaskHooks<'a> {
    builder: &'a mut Builder,
    spawn: Option<Hook>,
    before_poll: Option<Hook>,
    after_poll: Option<Hook>,
    terminate: Option<Hook>,
}

type Hook = Arc<dyn Fn(&TaskMeta<'_>) + Send + Sync>;

impl TaskHooks<'_> {
    /// Builds the runtime, as [`Builder::build`].
    ///
    /// # Errors
    /// Those of [`Builder::build`].
    pub fn build(self) -> io::Result<Runtime> {
        self.builder.build()
    }

    /// Calls this function too when a task is spawned, after the functions that were added before. As
    /// [`Builder::on_task_spawn`].
    pub fn on_task_spawn(mut self, hook: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Self {
        let hooks = chain(&mut self.spawn, hook);
        self.builder.on_task_spawn(move |task| {
            spawned(task);
            hooks(task);
        });
        self
    }

    /// Calls this function too before a task is polled. Its time is not counted for the task. As
    /// [`Builder::on_before_task_poll`].
    pub fn on_before_task_poll(mut self, hook: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Self {
        let hooks = chain(&mut self.before_poll, hook);
        self.builder.on_before_task_poll(move |task| {
            hooks(task);
            poll_begins(task);
        });
        self
    }

    /// Calls this function too after a task was polled. Its time is not counted for the task. As
    /// [`Builder::on_after_task_poll`].
    pub fn on_after_task_poll(mut self, hook: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Self {
        let hooks = chain(&mut self.after_poll, hook);
        self.builder.on_after_task_poll(move |task| {
            poll_ended(task);
            hooks(task);
        });
        self
    }

    /// Calls this function too when a task has ended. As [`Builder::on_task_terminate`].
    pub fn on_task_terminate(mut self, hook: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Self {
        let hooks = chain(&mut self.terminate, hook);
        self.builder.on_task_terminate(move |task| {
            ended(task);
            hooks(task);
        });
        self
    }
}

impl std::fmt::Debug for TaskHooks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskHooks").finish_non_exhaustive()
    }
}

/// Appends a function to the hooks of one kind.
fn chain(hooks: &mut Option<Hook>, next: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Hook {
    let all: Hook = match hooks.take() {
        Some(first) => Arc::new(move |task| {
            first(task);
            next(task);
        }),
        None => Arc::new(next),
    };
    Arc::clone(hooks.insert(all))
}

fn spawned(task: &TaskMeta<'_>) {
    if take_is_own() {
        exclude(task.spawned_at());
    }
    let Some(location) = location_of(task) else { return };
    let state = if UNPOLLED.is_zero() { Task::Counted(location) } else { Task::Pending(location) };
    // While the runtime shuts down, a task may end before its spawn is reported.
    match SPAWNED.add(task.id(), state) {
        Some(Task::Counted(location) | Task::Pending(location)) => {
            count(location, Event::Spawned);
            count(location, Event::Cancelled);
        }
        Some(Task::Named(_)) | None => {}
    }
}

fn poll_begins(task: &TaskMeta<'_>) {
    let location = location_of(task);
    let marks = Marks { pending: location.is_some() && SPAWNED.is_pending(task.id()), ..Marks::NONE };
    FRAMES.with(|frames| frames.push(task.id(), location, marks));
}

fn poll_ended(task: &TaskMeta<'_>) {
    let Some((measure, location, marks)) = FRAMES.with(|frames| frames.pop(task.id())) else { return };
    measure.end(location.filter(|_| !marks.named), None);
    if marks.pending || marks.namer_ended {
        settle(task.id(), marks);
    }
}

/// Draws the consequences of what has come up during a poll.
#[cold]
#[inline(never)]
fn settle(task: Id, marks: Marks) {
    match marks {
        Marks { ended: true, .. } => {}
        Marks { namer_ended: true, .. } => SPAWNED.unname(task),
        _ => SPAWNED.settle(task),
    }
}

fn ended(task: &TaskMeta<'_>) {
    // A task that ends outside a poll was cancelled by the runtime's shutdown.
    let in_poll = mark(task.id(), |marks| marks.ended = true);
    let end = if in_poll { Event::Ended } else { Event::Cancelled };
    match SPAWNED.remove(task.id()) {
        Some(Task::Counted(location)) => count(location, end),
        Some(Task::Pending(location)) => {
            count(location, Event::Spawned);
            count(location, end);
        }
        Some(Task::Named(_)) | None => {}
    }
}

/// Returns the name of the location where a task was spawned. `None` for the tasks of this library.
#[inline]
fn location_of(task: &TaskMeta<'_>) -> Option<NameId> {
    name_of_location(task.spawned_at(), NameOrigin::Location)
}
