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
        if let Some(ticks) = self.timed.as_ref().and_then(|timed| timed.scheduled_ticks()) {
            thread::add(self.name, Event::ScheduledTicks, ticks);
        }
        let measure = Measure::start(Some(self.name));
        // The end stands until the poll has returned, since a panic leaves no time to note one.
        let mut polling = Polling { task: self, end: Some(Event::Panicked), measure };
        let task = &mut *polling.task;
        task.membership.poll();
        let result = if scheduled_time() {
            let waker = TimedWaker::replace(&mut task.timed, context);
            poll(&mut Context::from_waker(&waker))
        } else {
            poll(context)
        };
        polling.end = is_last(&result).then_some(Event::Completed);
        result
    }

    /// Ends the task. Nothing more is counted for it.
    pub(crate) fn end(&mut self, end: Event) {
        if !self.ended {
            self.ended = true;
            self.membership.end();
            #[cfg(feature = "profile")]
            drop(self.created.take());
            count(self.name, end);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.end(Event::Cancelled);
    }
}

/// A poll in progress, counted when it returns or panics.
struct Polling<'a> {
    task: &'a mut Counted,
    end: Option<Event>,
    measure: Measure,
}

impl Drop for Polling<'_> {
    #[inline]
    fn drop(&mut self) {
        self.measure.end(Some(self.task.name));
        if let Some(end) = self.end {
            self.task.end(end);
        }
    }
}
