//! The data that taking stacks yields.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::reason::Reason;

/// The most return addresses of a stack. The root end of a deeper stack is cut off.
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
    pub(crate) used: Duration,
}

/// The result of sampling.
#[derive(Debug)]
pub(crate) struct CpuSummary {
    /// The CPU time that all threads but the sampling one have used.
    pub(crate) used: Duration,
    /// The number of periods without a copy.
    pub(crate) lost: u64,
    /// The CPU time of the sampling thread.
    pub(crate) own: Duration,
    /// The time that a thread took for its copy, the least and the median of the first samples. `None` without any.
    pub(crate) copying: Option<(Duration, Duration)>,
    /// Why some thread has no timer.
    pub(crate) unsampled: Option<Reason>,
}

/// A loaded object: the executable or a library.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// The addresses of its code.
    pub(crate) code: Range<usize>,
    /// The difference of an address in memory and in the file.
    pub(crate) bias: usize,
    /// The place of its code within the file.
    pub(crate) file_offset: usize,
    /// `None` for the executable.
    pub(crate) path: Option<PathBuf>,
    /// Empty if it has none.
    pub(crate) build_id: Box<[u8]>,
    /// True if it has unwind tables.
    #[cfg_attr(
        not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
        allow(dead_code, reason = "no stack is walked there")
    )]
    pub(crate) is_walkable: bool,
}

/// Finds the object that an address lies in, in a list sorted by address.
pub(crate) fn object_of(objects: &[Object], address: usize) -> Option<&Object> {
    let after = objects.partition_point(|object| object.code.start <= address);
    objects.get(after.checked_sub(1)?).filter(|object| address < object.code.end)
}
