//! One counted task: a future, or the handling of a request with its body.

use std::sync::Arc;
use std::task::Context;

use super::counters::Event;
#[cfg(feature = "profile")]
use super::created::{Sampled, sample};
use super::membership::Membership;
use super::name::NameId;
use super::settings::scheduled_time;
use super::thread::{self, Measure, count};
use super::waker::TimedWaker;

/// Counts a spawn when it is made and an end when it ends or is dropped.
pub(crate) struct Counted {
    name: NameId,
    ended: bool,
    membership: Membership,
    /// `Some` only while the time between wake and poll is measured.
    timed: Option<Arc<TimedWaker>>,
    #[cfg(feature = "profile")]
    created: Option<Sampled>,
}

impl Counted {
    pub(crate) fn new(name: NameId) -> Self {
        count(name, Event::Spawned);
        Counted {
            name,
            ended: false,
            membership: Membership::new(),
            timed: None,
            #[cfg(feature = "profile")]
            created: sample(name),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Polls a part of the task and counts the poll. The task completes if `is_last` says so of the result. A task that
    /// has ended is polled without being counted.
    #[inline]
    pub(crate) fn poll<R>(
        &mut self,
        context: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> R,
        is_last: impl FnOnce(&R) -> bool,
    ) -> R {
        if self.ended {
            return poll(context);
        }
        if let Some(timed) = &self.timed {
            count_scheduled(self.name, timed);
        }
        let name = self.name;
        let mut polling = Polling { task: self, measure: Measure::start(Some(name)), in_poll: true };
        polling.task.membership.poll();
        let result = if scheduled_time() {
            let waker = TimedWaker::replace(&mut polling.task.timed, context);
            poll(&mut Context::from_waker(&waker))
        } else {
            poll(context)
        };
        let is_last = is_last(&result);
        polling.in_poll = false;
        polling.measure.end(Some(name), is_last.then_some(Event::Completed));
        if is_last {
            polling.task.leave();
        }
        result
    }

    /// Ends the task. Nothing more is counted for it.
    pub(crate) fn end(&mut self, end: Event) {
        if !self.ended {
            self.leave();
            count(self.name, end);
        }
    }

    /// Notes that the task has ended. Its end is counted besides.
    fn leave(&mut self) {
        self.ended = true;
        self.membership.end();
        #[cfg(feature = "profile")]
        drop(self.created.take());
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.end(Event::Cancelled);
    }
}

#[cold]
#[inline(never)]
fn count_scheduled(name: NameId, timed: &TimedWaker) {
    if let Some(ticks) = timed.scheduled_ticks() {
        thread::add(name, Event::ScheduledTicks, ticks);
    }
}

/// A poll in progress. Its destructor counts one that panics.
struct Polling<'a> {
    task: &'a mut Counted,
    measure: Measure,
    in_poll: bool,
}

impl Polling<'_> {
    #[cold]
    #[inline(never)]
    fn panicked(&mut self) {
        self.measure.end(Some(self.task.name), Some(Event::Panicked));
        self.task.leave();
    }
}

impl Drop for Polling<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.in_poll {
            self.panicked();
        }
    }
}
