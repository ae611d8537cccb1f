//! Reads the Linux kernel through its text files and its system calls.

pub(super) mod calls;
pub(super) mod files;
