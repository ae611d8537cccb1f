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
mod types;
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
pub(crate) use types::{CpuSample, MAX_FRAMES, Object, Stack, object_of};
#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
pub(crate) use unsupported::*;
