//! Tasks by name: see [`TaskExt::with_task_name`].

mod clock;
mod counters;
#[cfg(tokio_unstable)]
mod hooks;
mod membership;
mod names;
#[cfg(any(test, tokio_unstable))]
mod place;
mod settings;
#[cfg(tokio_unstable)]
mod spawned;
mod sync;
mod thread;
mod waker;

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

pub(crate) use clock::nanos;
pub(crate) use counters::{Event, Totals};
#[cfg(tokio_unstable)]
pub use hooks::{TaskHooks, task_hooks};
pub(crate) use names::Giver;
pub(crate) use settings::{scheduled_time, set_scheduled_time, set_slow_poll_threshold};

use membership::Membership;
use names::{NameId, Names};
use pin_project_lite::pin_project;
use thread::{Measure, SLABS, count};
use waker::TimedWaker;

static NAMES: Names = Names::new();

/// Gives futures a name under which they are counted.
pub trait TaskExt: Future + Sized {
    /// Counts this future as a task of that name, in the metrics `rust.task.*`, from now until it completes,
    /// panics or is dropped, with whatever executor.
    ///
    /// Futures of the same name share a series. A process tells 200 names apart
    /// ([`task_name_limit`](crate::Builder::task_name_limit)); what comes later, and an empty name, is counted
    /// under `_OTHER`. Names are therefore for kinds of tasks, not for single ones: `"connection"`, not
    /// `"connection 17"`.
    ///
    /// Named futures may be nested. What an inner one takes of time and memory is its own and not the outer
    /// one's too.
    ///
    /// A poll costs two readings of a clock and a few additions to counters that no other thread writes. The
    /// first future of a name on a thread sets the counters up; after that, nothing is allocated and nothing
    /// locked for a name that is a text compiled into the program.
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
        let name = NAMES.of_text(name.into());
        count(name, Event::Spawned);
        NamedTask { future: self, name, ended: false, membership: Membership::new(), timed: None }
    }
}

impl<F: Future> TaskExt for F {}

pin_project! {
    /// A future that is counted under a name. Made by [`TaskExt::with_task_name`].
    #[must_use = "a future does nothing unless it is polled"]
    pub struct NamedTask<F> {
        #[pin]
        future: F,
        name: NameId,
        ended: bool,
        membership: Membership,
        // Only if the time between wake and poll is asked for.
        timed: Option<Arc<TimedWaker>>,
    }

    impl<F> PinnedDrop for NamedTask<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if !*this.ended {
                this.membership.end();
                count(*this.name, Event::Cancelled);
            }
        }
    }
}

impl<F> std::fmt::Debug for NamedTask<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamedTask").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<F: Future> Future for NamedTask<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if *this.ended {
            // What comes of that is the future's own affair; it is not a task any more.
            return this.future.poll(context);
        }
        if let Some(ticks) = this.timed.as_ref().and_then(|timed| timed.scheduled_ticks()) {
            thread::add(*this.name, Event::ScheduledTicks, ticks);
        }
        let mut poll = Polling {
            name: *this.name,
            ended: this.ended,
            // It stands until the poll has returned, for a panic leaves no time to note one.
            end: Some(Event::Panicked),
            measure: Measure::start(),
            membership: this.membership,
        };
        poll.membership.poll();
        let result = if scheduled_time() {
            let waker = TimedWaker::of(this.timed, context);
            this.future.poll(&mut Context::from_waker(&waker))
        } else {
            this.future.poll(context)
        };
        poll.end = result.is_ready().then_some(Event::Completed);
        result
    }
}

/// A poll in progress, counted when it ends, be it by a panic.
struct Polling<'a> {
    name: NameId,
    ended: &'a mut bool,
    end: Option<Event>,
    measure: Measure,
    membership: &'a mut Membership,
}

impl Drop for Polling<'_> {
    #[inline]
    fn drop(&mut self) {
        self.measure.end(Some(self.name));
        if let Some(end) = self.end {
            *self.ended = true;
            self.membership.end();
            count(self.name, end);
        }
    }
}

/// How many names are told apart: see [`task_name_limit`](crate::Builder::task_name_limit).
pub(crate) fn set_name_limit(limit: usize) {
    NAMES.set_limit(limit);
}

/// How many names there may come to be.
#[cfg(feature = "view")]
pub(crate) fn most_names() -> usize {
    NAMES.most()
}

/// Adds up what has been counted. The two lists, which grow together, are the caller's to keep.
pub(crate) fn totals(names: &mut Vec<(&'static str, Giver)>, totals: &mut Vec<Totals>) {
    NAMES.extend(names);
    totals.resize(names.len(), Totals::default());
    SLABS.sum(totals);
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
