//! The sample that the rows of `process.*` read.

#[cfg(unix)]
use libc::{rusage, timeval};
#[cfg(not(unix))]
use stand_in::{rusage, timeval};

/// The sample that the rows read. A field that cannot be read is `None`.
pub(crate) struct Process {
    pub(super) usage: Option<rusage>,
    pub(super) memory: Option<Memory>,
    pub(super) threads: Option<u64>,
    pub(super) file_descriptors: Option<u64>,
    pub(super) uptime: Option<f64>,
    pub(super) io: Option<Io>,
}

impl Process {
    pub(super) fn count(&self, field: impl Fn(&rusage) -> std::ffi::c_long) -> Option<u64> {
        field(self.usage.as_ref()?).try_into().ok()
    }
}

pub(super) fn seconds(time: timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

/// `/proc/self/statm`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) size: u64,
    pub(super) resident: u64,
}

/// `/proc/self/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) threads: u64,
    /// The start of the process, in ticks since the boot.
    pub(super) start: u64,
}

/// `/proc/self/io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Io {
    pub(super) read: u64,
    pub(super) written: u64,
}

/// Stand-ins for libc's types on systems without them, so that the rows compile. They have no instances.
#[cfg(not(unix))]
#[allow(non_camel_case_types, reason = "libc's names")]
mod stand_in {
    use std::ffi::c_long;

    #[derive(Clone, Copy)]
    pub(crate) struct timeval {
        pub(crate) tv_sec: i64,
        pub(crate) tv_usec: i64,
    }

    #[derive(Clone, Copy)]
    pub(crate) struct rusage {
        pub(crate) ru_utime: timeval,
        pub(crate) ru_stime: timeval,
        pub(crate) ru_minflt: c_long,
        pub(crate) ru_majflt: c_long,
        pub(crate) ru_nvcsw: c_long,
        pub(crate) ru_nivcsw: c_long,
    }
}
