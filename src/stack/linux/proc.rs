//! Reads what the kernel says about threads.

#![allow(unsafe_code, reason = "system calls")]

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::registers::Registers;
use crate::stack::reason::Reason;

/// Returns the ids of the process's threads.
pub(crate) fn threads() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the number of the process's threads, which is cheaper than their list.
pub(super) fn thread_count() -> Option<usize> {
    // A directory has two links more than it has directories.
    let links = fs::metadata("/proc/self/task").ok()?.nlink();
    usize::try_from(links).ok()?.checked_sub(2)
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
    let mask = blocked(&read(thread, "status")?);
    Ok(mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1))
}

/// Returns the mask of the signals that a thread blocks, from its status.
fn blocked(status: &str) -> Option<u64> {
    status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigBlk:")?.trim(), 16).ok())
}

/// The state of a thread: running, or waiting somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThreadState {
    /// On a CPU, or waiting for one.
    Runs,
    /// Off the CPU. Only the program counter and the stack pointer are known.
    Waits(Registers),
}

impl ThreadState {
    pub(super) fn of(thread: u32) -> Result<Self, Reason> {
        let malformed = Reason::Refused { call: "/proc/self/task/*/syscall", errno: libc::EINVAL };
        Self::parse(&read(thread, "syscall")?).ok_or(malformed)
    }

    fn parse(text: &str) -> Option<Self> {
        if text.starts_with("running") {
            return Some(ThreadState::Runs);
        }
        // The number of the system call, its arguments if there is one, the stack pointer and the program counter.
        let number = |text: &str| usize::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let mut last = text.split_ascii_whitespace().rev().map(number);
        let (pc, sp) = (last.next()??, last.next()??);
        Some(ThreadState::Waits(Registers { pc, sp, fp: 0, lr: 0 }))
    }
}

/// Returns the number of times that a thread got a CPU.
#[derive(PartialEq, Eq)]
pub(super) struct Switches(String);

impl Switches {
    pub(super) fn of(thread: u32) -> Result<Self, Reason> {
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

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::util::fuzz::{edited_text, run};

    #[test]
    fn any_state_is_read_or_refused() {
        const STATES: [&str; 4] = [
            "running\n",
            "202 0x7f8f4000a2d8 0x189 0x0 0x0 0x0 0xffffffff 0x7ffd3c1b2a40 0x7f8f5b4d9e4b\n",
            "-1 0x7ffd3c1b2a40 0x7f8f5b4d9e4b\n",
            "232 0x3 0x7f8f4000a2d8 0x400 0xffffffffffffffff 0x0 0x0 0x7f8f5affcb10 0x7f8f5b5c01a6\n",
        ];
        run(4_000, 1 << 18, |u| {
            let text = edited_text(u, &STATES)?;
            let state = ThreadState::parse(&text);
            if let Some(ThreadState::Waits(registers)) = state {
                assert!(text.split_ascii_whitespace().count() >= 2, "{text:?}");
                assert_eq!((registers.fp, registers.lr), (0, 0), "they are not known");
            }
            Ok(state.is_some())
        });
    }

    #[test]
    fn any_status_has_a_mask_or_none() {
        const STATUS: &str = "Name:\ttokio-runtime-w\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t8756\nPid:\t8757\n\
            Threads:\t17\nSigQ:\t0/127\nSigPnd:\t0000000000000000\nSigBlk:\t0000000000400000\nSigIgn:\t0000000000001000\n";
        assert_eq!(blocked(STATUS), Some(1 << (libc::SIGURG - 1)));
        run(4_000, 1 << 18, |u| Ok(blocked(&edited_text(u, &[STATUS])?).is_some()));
    }
}
