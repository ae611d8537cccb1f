//! Futures that are counted under a name.

use std::borrow::Cow;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::counted::Counted;
use super::lookup::{name_of_location, name_of_text};
use super::name::{NameId, NameOrigin};

/// Gives futures a name under which they are counted.
pub trait TaskExt: Future + Sized {
    /// Counts this future as a task of that name, in the metrics `rust.task.*`, from now until it completes, panics or is
    /// dropped. Any executor may run it.
    ///
    /// Futures of the same name share a series. A process distinguishes 200 names
    /// ([`task_name_limit`](crate::Builder::task_name_limit)); later names, and an empty one, are counted under `_OTHER`.
    /// Names are therefore for kinds of tasks, not for single ones: `"connection"`, not `"connection 17"`.
    ///
    /// Named futures may be nested. The time and memory of an inner one are not part of the outer one's.
    ///
    /// A poll costs two readings of a clock and a few additions to counters that no other thread writes. The first future
    /// of a name on a thread allocates the counters. After that, a name that is a text of the program needs no allocation
    /// and no lock.
    ///
    /// ```
    /// use opentelemetry_instrumentation_runtime::TaskExt;
    ///
    /// # async fn serve() {}
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// tokio::spawn(serve().with_task_name("server")).await.unwrap();
    /// # });
    /// ```
    fn with_task_name(self, name: impl Into<Cow<'static, str>>) -> NamedTask<Self> {
        NamedTask::new(self, name_of_text(name.into()))
    }

    /// Counts this future under the place where this is called, `src/server.rs:88`, as
    /// [`with_task_name`](Self::with_task_name) does under a name. It costs what a name costs that is a text of the
    /// program.
    ///
    /// The path starts at the crate: another crate's name and version come before it.
    ///
    /// ```
    /// use opentelemetry_instrumentation_runtime::TaskExt;
    ///
    /// # async fn serve() {}
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// tokio::spawn(serve().with_task_location()).await.unwrap();
    /// # });
    /// ```
    #[track_caller]
    fn with_task_location(self) -> NamedTask<Self> {
        NamedTask::new(self, caller())
    }
}

impl<F: Future> TaskExt for F {}

/// Returns the name of the caller's caller.
#[track_caller]
pub(crate) fn caller() -> NameId {
    name_of_location(Location::caller(), NameOrigin::Program).unwrap_or(NameId::OTHER)
}

pin_project! {
    /// A future that is counted under a name. Made by [`TaskExt`].
    #[must_use = "a future does nothing unless it is polled"]
    pub struct NamedTask<F> {
        // First, so that the task ends before the future's destructor runs.
        task: Counted,
        #[pin]
        future: F,
    }
}

impl<F> NamedTask<F> {
    pub(crate) fn new(future: F, name: NameId) -> Self {
        NamedTask { task: Counted::new(name), future }
    }
}

impl<F> std::fmt::Debug for NamedTask<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamedTask").field("ended", &self.task.has_ended()).finish_non_exhaustive()
    }
}

impl<F: Future> Future for NamedTask<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.task.poll(context, |context| this.future.poll(context), Poll::is_ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_adds_little_to_a_future() {
        let added = size_of::<NamedTask<[u64; 8]>>() - size_of::<[u64; 8]>();
        assert!(added <= 48, "{added}");
    }
}
