//! Tokio's hooks: tasks that nobody gave a name, by the place where they were spawned.

use std::cell::Cell;
use std::panic::Location;
use std::sync::Arc;

use tokio::runtime::{Builder, TaskMeta};
use tokio::task::Id;

use super::counters::Event;
use super::names::NameId;
use super::spawned::{SPAWNED, Task, UNPOLLED};
use super::thread::{Measure, count};
use super::{NAMES, place};

/// Counts every task of the runtime that is to be built, in the metrics `rust.task.*`, under the place where it is
/// spawned: `src/server.rs:88`, and with the crate before it if that is another one.
///
/// Tokio keeps one hook of each kind. Those that the builder has are replaced; hooks of your own belong on what
/// is returned, which runs them beside the library's.
///
/// A task that has a name ([`with_task_name`](crate::TaskExt::with_task_name)) is counted under that alone. The
/// name is the task's if the future was named outside the task and is polled when the task is polled first:
/// whether it is the task's future itself or lies within a timeout or a span makes no difference. What a task
/// names later is counted beside it. While a named future waits for its first poll anywhere in the process, a
/// task that is spawned might be the one that has its name, and is not counted before its own first poll.
///
/// Tokio does not tell its hooks how a task ended. `rust.task.ended` has no outcome for these tasks, unless the
/// runtime's shutdown cancelled them. Blocking tasks and those of a `LocalSet` are not counted: there are no hooks
/// for them.
///
/// ```
/// use opentelemetry_instrumentation_runtime::task_hooks;
///
/// let mut builder = tokio::runtime::Builder::new_current_thread();
/// task_hooks(&mut builder).on_task_spawn(|task| println!("{} is spawned", task.id()));
/// let runtime = builder.build().unwrap();
/// # runtime.block_on(async { tokio::spawn(async {}).await.unwrap() });
/// ```
pub fn task_hooks(builder: &mut Builder) -> TaskHooks<'_> {
    builder.on_task_spawn(spawned).on_before_task_poll(poll_begins).on_after_task_poll(poll_ended);
    builder.on_task_terminate(ended);
    TaskHooks { builder, spawn: None, before_poll: None, after_poll: None, terminate: None }
}

/// The hooks of a runtime that is to be built. Made by [`task_hooks`].
pub struct TaskHooks<'a> {
    builder: &'a mut Builder,
    spawn: Option<Hook>,
    before_poll: Option<Hook>,
    after_poll: Option<Hook>,
    terminate: Option<Hook>,
}

type Hook = Arc<dyn Fn(&TaskMeta<'_>) + Send + Sync>;

impl TaskHooks<'_> {
    /// Calls this function too when a task is spawned, after those that were given before. As
    /// [`Builder::on_task_spawn`].
    pub fn on_task_spawn(mut self, hook: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Self {
        let hooks = chain(&mut self.spawn, hook);
        self.builder.on_task_spawn(move |task| {
            spawned(task);
            hooks(task);
        });
        self
    }

    /// Calls this function too before a task is polled. What it takes is not the task's time. As
    /// [`Builder::on_before_task_poll`].
    pub fn on_before_task_poll(mut self, hook: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Self {
        let hooks = chain(&mut self.before_poll, hook);
        self.builder.on_before_task_poll(move |task| {
            hooks(task);
            poll_begins(task);
        });
        self
    }

    /// Calls this function too after a task was polled. What it takes is not the task's time. As
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

/// The hooks so far and one more.
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
    let Some(place) = place_of(task) else { return };
    let state = if UNPOLLED.any() { Task::Pending(place) } else { Task::Counted(place) };
    // Where the runtime is shutting down, a task may have ended before its spawn is told of.
    match SPAWNED.add(task.id(), state) {
        Some(Task::Counted(place) | Task::Pending(place)) => {
            count(place, Event::Spawned);
            count(place, Event::Cancelled);
        }
        Some(Task::Named(_)) | None => {}
    }
}

fn poll_begins(task: &TaskMeta<'_>) {
    let marks = Marks { pending: SPAWNED.is_pending(task.id()), ..Marks::NONE };
    FRAMES.with(|frames| frames.push(task.id(), marks));
}

fn poll_ended(task: &TaskMeta<'_>) {
    let Some((measure, marks)) = FRAMES.with(|frames| frames.pop(task.id())) else { return };
    measure.end(place_of(task).filter(|_| !marks.named));
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
    // Not in a poll, it was cancelled by the runtime's shutdown.
    let in_poll = mark(task.id(), |marks| marks.ended = true);
    let end = if in_poll { Event::Ended } else { Event::Cancelled };
    match SPAWNED.remove(task.id()) {
        Some(Task::Counted(place)) => count(place, end),
        Some(Task::Pending(place)) => {
            count(place, Event::Spawned);
            count(place, end);
        }
        Some(Task::Named(_)) | None => {}
    }
}

/// The name of the place where a task was spawned. None for the library's own probes.
#[inline]
fn place_of(task: &TaskMeta<'_>) -> Option<NameId> {
    NAMES.of_place(task.spawned_at(), |place| (!is_probe(place)).then(|| place::label(place)))
}

/// Probes are spawned in `src/watch.rs` and below.
fn is_probe(place: &Location<'_>) -> bool {
    let sources = file!().get(..file!().len() - "task/hooks.rs".len());
    sources
        .and_then(|sources| place.file().strip_prefix(sources))
        .is_some_and(|file| file.starts_with("watch"))
}

/// Whether this thread polls the task, and for the first time as far as it matters.
pub(crate) fn is_in_first_poll(task: Id) -> bool {
    let mut pending = false;
    mark(task, |marks| pending = marks.pending);
    pending
}

/// The poll in progress is counted under the task's own name.
pub(crate) fn mark_named(task: Id) {
    mark(task, |marks| marks.named = true);
}

/// The future that gave the task its name ends in the poll in progress.
pub(crate) fn mark_namer_ended(task: Id) {
    mark(task, |marks| marks.namer_ended = true);
}

/// Marks the poll of the task that is in progress on this thread. Whether there is one.
fn mark(task: Id, change: impl FnOnce(&mut Marks)) -> bool {
    FRAMES.with(|frames| match frames.find(task) {
        Some((_, frame)) => {
            let mut marks = frame.marks.get();
            change(&mut marks);
            frame.marks.set(marks);
            true
        }
        None => false,
    })
}

/// What has come up during a poll.
#[derive(Clone, Copy)]
struct Marks {
    /// The poll may tell whether the task has a name.
    pending: bool,
    named: bool,
    namer_ended: bool,
    ended: bool,
}

impl Marks {
    const NONE: Marks = Marks { pending: false, named: false, namer_ended: false, ended: false };
}

thread_local! {
    static FRAMES: Frames = const { Frames { depth: Cell::new(0), frames: [const { Frame::new() }; 4] } };
}

/// The polls in progress on a thread, the innermost last. There is more than one where a task blocks on another
/// runtime.
struct Frames {
    depth: Cell<usize>,
    /// What lies deeper is not measured.
    frames: [Frame; 4],
}

struct Frame {
    task: Cell<Option<Id>>,
    measure: Cell<Measure>,
    marks: Cell<Marks>,
}

impl Frame {
    const fn new() -> Self {
        Frame { task: Cell::new(None), measure: Cell::new(Measure::NONE), marks: Cell::new(Marks::NONE) }
    }
}

impl Frames {
    #[inline]
    fn push(&self, task: Id, marks: Marks) {
        let depth = self.depth.get();
        self.depth.set(depth + 1);
        if let Some(frame) = self.frames.get(depth) {
            frame.task.set(Some(task));
            frame.marks.set(marks);
            frame.measure.set(Measure::start());
        }
    }

    /// Together with all that lies within and was left by a panic.
    #[inline]
    fn pop(&self, task: Id) -> Option<(Measure, Marks)> {
        let (depth, frame) = self.find(task)?;
        self.depth.set(depth);
        Some((frame.measure.get(), frame.marks.get()))
    }

    #[inline]
    fn find(&self, task: Id) -> Option<(usize, &Frame)> {
        let open = self.frames.get(..self.depth.get()).unwrap_or(&self.frames);
        open.iter().enumerate().rfind(|(_, frame)| frame.task.get() == Some(task))
    }
}
