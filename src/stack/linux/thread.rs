//! Takes the stacks of other threads, each in the way that disturbs it least.

#![allow(unsafe_code, reason = "system calls")]

use std::fs;
use std::io;

use super::copy::Copy;
use super::registers::Registers;
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

/// Returns the ids of the process's threads.
pub(crate) fn threads() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the name of a thread, as the kernel keeps it: at most 15 bytes.
pub(crate) fn thread_name(thread: u32) -> Option<String> {
    let name = read(thread, "comm").ok()?;
    Some(name.trim_end_matches('\n').to_owned())
}

pub(super) fn own_id() -> u32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// Returns true if a thread blocks a signal.
pub(super) fn is_blocked(thread: u32, signal: libc::c_int) -> Result<bool, Reason> {
    let status = read(thread, "status")?;
    let mask =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigBlk:")?.trim(), 16).ok());
    Ok(mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1))
}

/// Where a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On a CPU, or waiting for one.
    Runs,
    /// Off the CPU. Only the program counter and the stack pointer are known.
    Waits(Registers),
}

impl Place {
    fn of(thread: u32) -> Result<Self, Reason> {
        let text = read(thread, "syscall")?;
        if text.starts_with("running") {
            return Ok(Place::Runs);
        }
        // The number of the system call, its arguments if there is one, the stack pointer and the program counter.
        let number = |text: &str| usize::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let mut last = text.split_ascii_whitespace().rev().map(number);
        let (Some(Some(pc)), Some(Some(sp))) = (last.next(), last.next()) else {
            return Err(Reason::Refused { call: "/proc/self/task/*/syscall", errno: libc::EINVAL });
        };
        Ok(Place::Waits(Registers { pc, sp, fp: 0, lr: 0 }))
    }
}

/// How often a thread was given the CPU.
#[derive(PartialEq, Eq)]
struct Switches(String);

impl Switches {
    fn of(thread: u32) -> Result<Self, Reason> {
        // The time on the CPU, the time waiting for it, and the number of times that it ran.
        read(thread, "schedstat").map(Switches)
    }
}

fn read(thread: u32, file: &'static str) -> Result<String, Reason> {
    let refused = |error: &io::Error| Reason::Refused {
        call: match file {
            "syscall" => "/proc/self/task/*/syscall",
            "schedstat" => "/proc/self/task/*/schedstat",
            _ => "/proc/self/task/*/status",
        },
        errno: error.raw_os_error().unwrap_or_default(),
    };
    let bytes = fs::read(format!("/proc/self/task/{thread}/{file}")).map_err(|error| {
        let is_there = fs::exists(format!("/proc/self/task/{thread}")).unwrap_or(false);
        match error.raw_os_error() {
            Some(libc::ESRCH) => Reason::Ended,
            Some(libc::ENOENT) if !is_there => Reason::Ended,
            _ => refused(&error),
        }
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
