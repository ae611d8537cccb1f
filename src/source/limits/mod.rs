//! `rust.memory.limit`, `rust.cpu.*`, `rust.file_descriptor.limit`: the limits of the process.

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod others;
mod sample;
mod table;

pub(crate) use table::{TABLE, source};
