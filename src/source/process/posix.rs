//! Reads of the process what every Unix reports.

use super::sample::{ContextSwitches, CpuTime, Faults, Process};
use crate::source::unix;

impl Process {
    /// Returns what `getrusage` says.
    pub(super) fn by_usage() -> Self {
        let usage = unix::usage();
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        let cpu =
            |usage: &libc::rusage| CpuTime { user: seconds(usage.ru_utime), system: seconds(usage.ru_stime) };
        let context_switches = |usage: &libc::rusage| {
            let (voluntary, involuntary) =
                (usage.ru_nvcsw.try_into().ok()?, usage.ru_nivcsw.try_into().ok()?);
            Some(ContextSwitches { voluntary, involuntary })
        };
        let faults = |usage: &libc::rusage| {
            let (major, minor) = (usage.ru_majflt.try_into().ok()?, usage.ru_minflt.try_into().ok()?);
            Some(Faults { major, minor })
        };
        Process {
            cpu: usage.as_ref().map(cpu),
            context_switches: usage.as_ref().and_then(context_switches),
            faults: usage.as_ref().and_then(faults),
            ..Process::default()
        }
    }
}

/// Reads nothing else.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub(super) struct Sampler;

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
impl Sampler {
    pub(super) fn new(_: bool) -> Self {
        Sampler
    }

    pub(super) fn sample(&mut self) -> Process {
        Process::by_usage()
    }
}
