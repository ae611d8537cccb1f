//! Finds out whether a worker may have moved to another thread, as `block_in_place` makes it do.
//! `tests/tokio_stall_rule.rs` includes this file, which therefore uses nothing of the crate but `observe`.
//!
//! A worker moves while its thread runs, and to a thread that then runs the worker without a pause: if that thread had
//! nothing to do it would park, and Tokio would publish that. So a thread that rests for longer than polls take that are
//! not slow does not run the worker.

use std::time::Duration;

use super::observe::{State, ThreadTime};

/// The threads that a worker could have moved to.
#[derive(Debug, Default)]
pub(super) struct Others {
    threads: Vec<Other>,
    /// The moment since which the worker's own thread has stood still.
    still: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Other {
    last: ThreadTime,
    /// The moment since which its CPU time has stood still.
    still: Duration,
    /// True if it has rested for so long that the worker cannot have moved to it.
    has_rested: bool,
}

impl Others {
    /// Returns true if the thread was there at the last look.
    pub(super) fn contains(&self, id: u32) -> bool {
        self.threads.iter().any(|other| other.last.id == id)
    }

    /// Takes in the CPU times of all threads in question. `still` says since when the worker's own thread has stood still,
    /// or that it runs; `rest`, how long a thread that runs the worker cannot rest.
    pub(super) fn look(
        &mut self,
        now: Duration,
        times: impl IntoIterator<Item = ThreadTime>,
        still: Option<Duration>,
        rest: Duration,
        state: impl Fn(u32) -> State,
    ) {
        // What was seen before the worker's own thread stood still proves nothing: the worker may have moved then.
        let goes_on = still.is_some() && still == self.still;
        let look = |time: ThreadTime| {
            let known = self.threads.iter().find(|other| other.last.id == time.id);
            let mut other = match known {
                Some(other) if other.last.cpu == time.cpu => *other,
                Some(other) => Other { last: time, still: now, ..*other },
                None => Other { last: time, still: now, has_rested: false },
            };
            other.has_rested &= goes_on;
            let rests = other.still.max(still.unwrap_or_default());
            if !other.has_rested && now.saturating_sub(rests) >= rest {
                // A thread that is not given a CPU does not rest.
                other.has_rested = state(time.id) == State::Waiting;
            }
            other
        };
        let threads = times.into_iter().map(look).collect();
        (self.threads, self.still) = (threads, still);
    }

    /// Returns true if all of them have rested, so that none of them runs the worker.
    pub(super) fn have_rested(&self) -> bool {
        self.threads.iter().all(|other| other.has_rested)
    }
}
