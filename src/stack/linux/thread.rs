//! Takes the stacks of other threads, each in the way that disturbs it least.

use std::time::{Duration, Instant};

use super::clock::Clock;
use super::copy::Copy;
use super::proc::{Switches, ThreadState, own_id};
use super::{pool, signal, walk};
use crate::stack::reason::Reason;
use crate::stack::types::{MAX_FRAMES, Stack};

/// The number of attempts to copy a thread that goes on meanwhile.
const MAX_TRIES: usize = 3;

/// Returns the stack of a thread of this process. A thread that waits in the kernel does not notice; a running thread is
/// interrupted for some microseconds, once it has been on a CPU for a moment, which is waited for with some patience.
pub(crate) fn of_thread(thread: u32, patience: Duration) -> Result<Stack, Reason> {
    pool::refresh();
    if thread == own_id() {
        let mut frames = [0; MAX_FRAMES];
        let walked = walk::here(&mut frames);
        let frames = frames.get(..walked.len).unwrap_or_default().into();
        return Ok(Stack { frames, is_cut: walked.is_cut });
    }
    let mut copy = None;
    for _ in 0..MAX_TRIES {
        let switches = Switches::of(thread)?;
        let ThreadState::Waits(registers) = ThreadState::of(thread)? else { break };
        let copy = copy.get_or_insert_with(Copy::new);
        copy.fill(registers).map_err(|errno| Reason::Refused { call: "process_vm_readv", errno })?;
        // It has not run since, so that the copy is of one moment.
        if ThreadState::of(thread)? == ThreadState::Waits(registers) && Switches::of(thread)? == switches {
            return copy.stack();
        }
    }
    if !is_computing(thread, patience)? {
        return Err(Reason::NoAnswer);
    }
    signal::ask(thread)
}

/// Waits for a moment in which a thread is on a CPU and has been there for a while. Returns false if there is none.
///
/// A thread that can run may also be on its way out of a system call and wait for a CPU there. A signal would end that call
/// with an error.
fn is_computing(thread: u32, patience: Duration) -> Result<bool, Reason> {
    const WHILE: Duration = Duration::from_micros(100);
    const PAUSE: Duration = Duration::from_millis(1);
    let clock = Clock::of_thread(thread);
    let asked = Instant::now();
    while asked.elapsed() < patience {
        let before = clock.now().ok_or(Reason::Ended)?;
        std::thread::sleep(WHILE);
        let (start, used) = (Instant::now(), clock.now().ok_or(Reason::Ended)?);
        let can_run = ThreadState::of(thread)? == ThreadState::Runs;
        let at_last = clock.now().ok_or(Reason::Ended)?.saturating_sub(used);
        // It has computed for a while, and does at this moment.
        if can_run && used.saturating_sub(before) >= WHILE / 2 && at_last >= start.elapsed() / 2 {
            return Ok(true);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(false)
}
