//! `process.*`: the kernel's statistics of this process.

#[cfg(target_os = "linux")]
mod linux;
mod sample;
mod table;

pub(crate) use table::{TABLE, source};
