//! Describes what the watcher sees of a worker and of its thread.
//! `tests/tokio_stall_rule.rs` includes this file, which therefore uses nothing of the crate.

use std::time::Duration;

/// The figures that a worker has published, at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observation {
    /// Tokio's count of parks and unparks: odd while the worker sleeps.
    pub(super) park_unpark: u64,
    /// Tokio's busy time.
    pub(super) busy: Duration,
    /// Tokio's count of polls, without those of probes. Only under `tokio_unstable`.
    pub(super) polls: Option<u64>,
    /// The moment at which the worker last ran a probe.
    pub(super) probed: Duration,
}

impl Observation {
    pub(super) fn published(&self) -> (u64, Duration) {
        (self.park_unpark, self.busy)
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.park_unpark % 2 == 1
    }
}

/// A poll in progress on a thread: the number of a task's name, and how many polls of that name have ended there. As
/// long as both stay the same, it is the same poll.
pub(super) type Poll = (u32, u64);

/// A thread and the CPU time that it has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ThreadTime {
    pub(super) id: u32,
    pub(super) cpu: Duration,
}

/// The state of a thread at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It waits in the kernel, for a lock, for data or for time to pass.
    Waiting,
    /// It runs, or waits for a CPU.
    Runnable,
    /// It is stopped, has ended, or may not be looked at.
    Unknown,
}

/// Looks at the worker's thread closely. The rule asks only for what it needs, since each answer costs something.
pub(super) trait Inspect {
    /// Returns the thread that was last seen to run the worker, and its CPU time.
    fn time(&mut self) -> Option<ThreadTime>;
    /// Returns the poll in progress, if it is of a task that is counted by name.
    fn poll(&mut self) -> Option<Poll>;
    /// Returns what the thread is doing. If the thread is unknown, it waits if every thread waits that it could be.
    fn state(&mut self) -> State;
    /// Returns how long the thread has waited for a CPU in all.
    fn run_delay(&mut self) -> Option<Duration>;
    /// Looks at the threads that the worker could have moved to. `still` says since when the worker's own thread has stood
    /// still, or that it runs; `rest`, how long a thread that runs the worker cannot rest.
    fn look_at_others(&mut self, now: Duration, still: Option<Duration>, rest: Duration);
    /// Returns true if none of them can be the worker's thread.
    fn is_unmoved(&mut self) -> bool;
}
