//! The interface to the rest of the library: the totals by name, the limit of names, and the task that a thread polls.

use super::counters::Totals;
use super::name::{NameId, NameOrigin};
use super::names::NAMES;
use super::thread::{SLABS, count_stall, current};

/// Sets how many names are distinguished: see [`task_name_limit`](crate::Builder::task_name_limit).
pub(crate) fn set_name_limit(limit: usize) {
    NAMES.set_limit(limit);
}

/// Returns how many names there may be.
#[cfg(feature = "view")]
pub(crate) fn max_names() -> usize {
    NAMES.max()
}

/// Adds up the counts of all threads. The caller keeps the two lists, which grow together.
pub(crate) fn totals(names: &mut Vec<(&'static str, NameOrigin)>, totals: &mut Vec<Totals>) {
    NAMES.extend(names);
    totals.resize(names.len(), Totals::default());
    SLABS.sum(totals);
}

/// Returns the number of the task name that this thread polls under at this moment. The innermost name counts.
///
/// It neither locks nor allocates nor panics, and runs no destructor: an allocator and a signal handler may call it.
#[allow(dead_code, reason = "profiles and the watcher use it, which not every build has")]
#[inline]
pub(crate) fn current_task() -> Option<NameId> {
    current()
}

/// Returns the text of a task name. As [`current_task`], it may be called anywhere.
#[allow(dead_code, reason = "profiles and the watcher use it, which not every build has")]
pub(crate) fn task_name(name: NameId) -> &'static str {
    NAMES.text(name)
}

/// Returns the text of the task name that this thread polls under at this moment. As [`current_task`], it may be called
/// anywhere.
#[allow(dead_code, reason = "profiles and the watcher use it, which not every build has")]
pub(crate) fn current_task_name() -> Option<&'static str> {
    current_task().map(task_name)
}

/// Counts a stall in `rust.task.stalls` for the task that a worker's thread polls at this moment, and returns the task's
/// name. `thread` is the id by which the operating system knows the thread. To be called once a stall, while it lasts.
/// `None` where the thread polls no task that has a name.
pub(crate) fn count_stall_of_thread(thread: u32) -> Option<&'static str> {
    count_stall(thread).map(task_name)
}

/// Returns the name of the task that a thread polls at this moment, and a number that changes when the poll has ended.
/// `thread` is the id by which the operating system knows the thread.
pub(crate) fn current_poll(thread: u32) -> Option<(NameId, u64)> {
    SLABS.current_poll_of(thread)
}
