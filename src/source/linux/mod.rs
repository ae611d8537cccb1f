//! Reads the Linux kernel: its text files and its system calls.

pub(super) mod calls;
pub(super) mod files;
