//! Why there is no profile.

use std::fmt;

use crate::stack::Reason;

/// Says why a profile could not be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The system or the architecture is not supported: profiles need Linux on x86-64 or aarch64.
    Unsupported,
    /// The executable has no unwind tables (`.eh_frame`), so that stacks cannot be walked.
    NoUnwindTables,
    /// The system refuses a call that is needed, such as under a seccomp profile.
    Refused {
        /// The system call, or the file under `/proc`.
        call: &'static str,
        /// The number of the error.
        errno: i32,
    },
    /// Another profile of this kind is being taken.
    AlreadyRunning,
    /// The global allocator cannot take samples. It has to be made by
    /// [`CountingAllocator::sampled`](crate::CountingAllocator::sampled).
    NotSampled,
    /// The mean distance between samples is zero.
    InvalidMean,
    /// There is no memory for samples.
    NoMemory,
    /// No heap profile runs.
    NotRunning,
    /// The duration is zero or more than an hour.
    InvalidDuration,
    /// The thread could not be asked for its stack: it has ended, blocks SIGURG or was not given the CPU in time.
    NoAnswer,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unsupported => f.write_str("profiles are supported on Linux on x86-64 and aarch64 only"),
            Error::NoUnwindTables => Reason::NoTables.fmt(f),
            Error::Refused { call, errno } => Reason::Refused { call, errno: *errno }.fmt(f),
            Error::AlreadyRunning => f.write_str("another profile of this kind is being taken"),
            Error::NotSampled => {
                f.write_str("the global allocator is no `CountingAllocator` made by `sampled()`")
            }
            Error::InvalidMean => f.write_str("the mean distance between samples must be greater than 0"),
            Error::NoMemory => f.write_str("there is no memory for samples"),
            Error::NotRunning => f.write_str("no heap profile runs"),
            Error::InvalidDuration => f.write_str("the duration must be greater than 0 and at most an hour"),
            Error::NoAnswer => f.write_str("the thread could not be asked for its stack"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unsupported => Error::Unsupported,
            Reason::NoTables => Error::NoUnwindTables,
            Reason::Refused { call, errno } => Error::Refused { call, errno },
            Reason::Busy => Error::AlreadyRunning,
            Reason::Ended | Reason::SignalBlocked | Reason::NoAnswer => Error::NoAnswer,
        }
    }
}
