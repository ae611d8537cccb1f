//! The sample that the rows of `process.*` read. It is the same on every system.

#[cfg(any(target_os = "macos", windows))]
use std::time::{Duration, Instant, SystemTime};

/// The sample that the rows read. A field that cannot be read, or that the system does not have, is `None`.
#[derive(Default)]
pub(crate) struct Process {
    pub(super) cpu: Option<CpuTime>,
    pub(super) context_switches: Option<ContextSwitches>,
    pub(super) faults: Option<Faults>,
    pub(super) memory: Option<Memory>,
    pub(super) threads: Option<u64>,
    pub(super) file_descriptors: Option<u64>,
    pub(super) uptime: Option<f64>,
    pub(super) io: Option<Io>,
}

/// Seconds of all threads, ended ones included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CpuTime {
    pub(super) user: f64,
    pub(super) system: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContextSwitches {
    pub(super) voluntary: u64,
    pub(super) involuntary: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) major: u64,
    pub(super) minor: u64,
}

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) size: u64,
    pub(super) resident: u64,
}

/// Bytes of the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Io {
    pub(super) read: u64,
    pub(super) written: u64,
}

/// The start of a process, by the wall clock. Later changes of that clock do not count.
#[cfg(any(target_os = "macos", windows))]
pub(super) struct Start {
    process: u32,
    uptime: Duration,
    at: Instant,
}

#[cfg(any(target_os = "macos", windows))]
impl Start {
    fn of(process: u32, start: SystemTime) -> Self {
        let uptime = SystemTime::now().duration_since(start).unwrap_or_default();
        Start { process, uptime, at: Instant::now() }
    }

    /// Returns the seconds since this process started. `read` returns the start; it is called once in a process.
    pub(super) fn uptime(known: &mut Option<Self>, read: impl FnOnce() -> Option<SystemTime>) -> Option<f64> {
        let process = std::process::id();
        if !known.as_ref().is_some_and(|start| start.process == process) {
            *known = read().map(|start| Start::of(process, start));
        }
        known.as_ref().map(|start| (start.uptime + start.at.elapsed()).as_secs_f64())
    }
}
