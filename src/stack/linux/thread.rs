//! Takes the stacks of other threads, each in the way that disturbs it least.

use super::copy::Copy;
use super::proc::{Place, Switches, own_id};
use super::{pool, signal};
use crate::stack::{self, MAX_FRAMES, Reason, Stack};

/// How often a thread that goes on while it is copied is tried again.
const MAX_TRIES: usize = 3;

/// Returns the stack of a thread of this process. A thread that waits in the kernel does not notice; a running thread is
/// interrupted for some microseconds.
pub(crate) fn of_thread(thread: u32) -> Result<Stack, Reason> {
    pool::refresh();
    if thread == own_id() {
        let mut frames = [0; MAX_FRAMES];
        let walked = stack::here(&mut frames);
        let frames = frames.get(..walked.len).unwrap_or_default().into();
        return Ok(Stack { frames, is_cut: walked.is_cut });
    }
    let mut copy = None;
    for _ in 0..MAX_TRIES {
        let switches = Switches::of(thread)?;
        let Place::Waits(registers) = Place::of(thread)? else { break };
        let copy = copy.get_or_insert_with(Copy::new);
        copy.fill(registers).map_err(|errno| Reason::Refused { call: "process_vm_readv", errno })?;
        // It has not run since, so that the copy is of one moment.
        if Place::of(thread)? == Place::Waits(registers) && Switches::of(thread)? == switches {
            return copy.stack();
        }
    }
    // Not to a thread that waits now and then: the signal might end its system call.
    if Place::of(thread)? != Place::Runs {
        return Err(Reason::NoAnswer);
    }
    signal::ask(thread)
}
