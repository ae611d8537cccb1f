//! Passes the stalls of the watched runtimes on to the profiles.

use crate::profile::{StallSeen, note_stalled};
use crate::source::tokio::Runtimes;
use crate::watch::PresentStall;

/// Returns the present stalls in the form that profiles take them in, and notes the time of all stalls.
pub(super) fn present(runtimes: &Runtimes) -> Vec<StallSeen> {
    note_stalled(runtimes.take_stalled());
    let seen = |(runtime, stall): (_, PresentStall)| StallSeen {
        runtime,
        worker: stall.worker,
        cause: stall.cause.name(),
        since: stall.since,
        thread: stall.thread,
        task: stall.task,
        candidates: Box::new(move || stall.candidates()),
    };
    runtimes.present_stalls().into_iter().map(seen).collect()
}
