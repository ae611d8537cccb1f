//! Says why a stack cannot be had.

use std::fmt;

/// The reason that there is no stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "either the first one is used, or all others")]
pub(crate) enum Reason {
    /// Not Linux on x86-64 or aarch64.
    Unsupported,
    /// The executable has no unwind tables.
    NoTables,
    /// The system refuses a call, such as under a strict seccomp profile.
    Refused { call: &'static str, errno: i32 },
    /// The thread has ended.
    Ended,
    /// The thread blocks the signal that would make it copy its stack.
    SignalBlocked,
    /// The thread did not answer in time, or never stood still.
    NoAnswer,
    /// Another thread is taking a stack by signal.
    Busy,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Unsupported => f.write_str("stacks are supported on Linux on x86-64 and aarch64 only"),
            Reason::NoTables => f.write_str("the executable has no unwind tables"),
            Reason::Refused { call, errno } => {
                write!(f, "the system refuses {call}: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Reason::Ended => f.write_str("the thread has ended"),
            Reason::SignalBlocked => f.write_str("the thread blocks the signal"),
            Reason::NoAnswer => f.write_str("the thread did not answer in time"),
            Reason::Busy => f.write_str("another stack is being taken"),
        }
    }
}
