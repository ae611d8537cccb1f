//! Takes stacks: of the calling thread in place, and of other threads from a copy of their stack memory.
//!
//! Stacks are walked by the tables that unwinding uses (`.eh_frame`), so that neither frame pointers nor debug information
//! are needed. `modules` loads the tables beforehand and `pool` publishes them, so that a walk takes no lock and allocates
//! nothing. A thread that waits in the kernel is copied without disturbing it (`copy`); a thread that runs copies its own
//! stack in a signal handler (`signal`), and the thread that asked walks the copy.

#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod linux;
mod reason;
#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod unsupported;

#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) use linux::*;
pub(crate) use reason::Reason;
#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
pub(crate) use unsupported::*;

/// How many return addresses a stack keeps at most. The root end of a deeper stack is cut off.
pub(crate) const MAX_FRAMES: usize = 64;

/// The length of a stack that was written to a caller's array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Walked {
    /// The number of return addresses written. 0 if no stack could be taken.
    pub(crate) len: usize,
    /// True if the root end is missing: the stack is deeper, or it leads through code without unwind tables.
    pub(crate) is_cut: bool,
}

/// A stack of return addresses, leaf first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Stack {
    pub(crate) frames: Box<[usize]>,
    /// See [`Walked::is_cut`].
    pub(crate) is_cut: bool,
}

/// A stack with the CPU time that it stands for.
#[derive(Debug)]
pub(crate) struct CpuSample {
    /// Empty if the copy could not be walked.
    pub(crate) stack: Stack,
    pub(crate) thread_name: Option<String>,
    /// The name of the task that the thread polled.
    pub(crate) task: Option<&'static str>,
    /// The number of periods of the timer. 0 for time that is counted after the last sample of a thread.
    pub(crate) periods: u32,
    pub(crate) used: std::time::Duration,
}

/// What there was to sample.
#[derive(Debug)]
pub(crate) struct CpuSummary {
    /// The CPU time that all threads but the sampling one have used.
    pub(crate) used: std::time::Duration,
    /// For how many periods a copy could not be kept.
    pub(crate) lost: u64,
    /// Why some thread has no timer.
    pub(crate) unsampled: Option<Reason>,
}

/// A loaded object: the executable or a library.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// The addresses of its code.
    pub(crate) code: std::ops::Range<usize>,
    /// What to subtract from an address to get the one that the file states.
    pub(crate) bias: usize,
    /// The place of its code within the file.
    pub(crate) file_offset: usize,
    /// `None` for the executable.
    pub(crate) path: Option<std::path::PathBuf>,
    /// Empty if it has none.
    pub(crate) build_id: Box<[u8]>,
    /// True if it has unwind tables.
    pub(crate) is_walkable: bool,
}

/// Finds the object that an address lies in, in a list sorted by address.
pub(crate) fn object_of(objects: &[Object], address: usize) -> Option<&Object> {
    let after = objects.partition_point(|object| object.code.start <= address);
    objects.get(after.checked_sub(1)?).filter(|object| address < object.code.end)
}
