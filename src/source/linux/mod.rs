//! Reads the Linux kernel through its text files and its system calls.

pub(crate) mod calls;
pub(crate) mod files;
