//! The polls in progress on each thread, from Tokio's hook before a poll to the one after it.

use std::cell::Cell;

use tokio::task::Id;

use super::name::NameId;
use super::thread::Measure;

/// The events during a poll.
#[derive(Clone, Copy)]
pub(crate) struct Marks {
    /// The poll may show whether the program has named the task.
    pub(crate) pending: bool,
    /// The poll is counted under the name that the program gave.
    pub(crate) named: bool,
    /// The future that gave the task its name has ended.
    pub(crate) namer_ended: bool,
    pub(crate) ended: bool,
}

impl Marks {
    pub(crate) const NONE: Marks = Marks { pending: false, named: false, namer_ended: false, ended: false };
}

thread_local! {
    pub(crate) static FRAMES: Frames = const { Frames { depth: Cell::new(0), frames: [const { Frame::new() }; 4] } };
}

/// Returns whether this thread polls the task and its first poll has not ended.
pub(crate) fn is_in_first_poll(task: Id) -> bool {
    let mut pending = false;
    mark(task, |marks| pending = marks.pending);
    pending
}

/// Notes that the poll in progress is counted under the name that the program gave.
pub(crate) fn mark_named(task: Id) {
    mark(task, |marks| marks.named = true);
}

/// Notes that the future that gave the task its name ends in the poll in progress.
pub(crate) fn mark_namer_ended(task: Id) {
    mark(task, |marks| marks.namer_ended = true);
}

/// Changes the marks of the poll of the task that is in progress on this thread. Returns whether there is one.
pub(crate) fn mark(task: Id, change: impl FnOnce(&mut Marks)) -> bool {
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

/// The polls in progress on a thread, the innermost last. There is more than one where a task blocks on another runtime.
pub(crate) struct Frames {
    depth: Cell<usize>,
    /// Deeper polls are not measured.
    frames: [Frame; 4],
}

struct Frame {
    task: Cell<Option<Id>>,
    location: Cell<Option<NameId>>,
    measure: Cell<Measure>,
    marks: Cell<Marks>,
}

impl Frame {
    const fn new() -> Self {
        Frame {
            task: Cell::new(None),
            location: Cell::new(None),
            measure: Cell::new(Measure::NONE),
            marks: Cell::new(Marks::NONE),
        }
    }
}

impl Frames {
    #[inline]
    pub(crate) fn push(&self, task: Id, location: Option<NameId>, marks: Marks) {
        let depth = self.depth.get();
        self.depth.set(depth + 1);
        if let Some(frame) = self.frames.get(depth) {
            frame.task.set(Some(task));
            frame.location.set(location);
            frame.marks.set(marks);
            frame.measure.set(Measure::start(location));
        }
    }

    /// Removes the poll of a task, and with it all polls within it that a panic has left.
    #[inline]
    pub(crate) fn pop(&self, task: Id) -> Option<(Measure, Option<NameId>, Marks)> {
        let (depth, frame) = self.find(task)?;
        self.depth.set(depth);
        Some((frame.measure.get(), frame.location.get(), frame.marks.get()))
    }

    #[inline]
    fn find(&self, task: Id) -> Option<(usize, &Frame)> {
        let open = self.frames.get(..self.depth.get()).unwrap_or(&self.frames);
        open.iter().enumerate().rfind(|(_, frame)| frame.task.get() == Some(task))
    }
}
