//! `rust.memory.limit`, `rust.cpu.*`, `rust.file_descriptor.limit`: the limits of the process.

#[cfg(target_os = "linux")]
mod cgroup;
mod table;

pub(crate) use table::{TABLE, source};
