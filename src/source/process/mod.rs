//! `process.*`: the system's statistics of this process.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(unix)]
mod posix;
mod sample;
mod table;
#[cfg(windows)]
mod windows;

pub(crate) use table::{TABLE, source};
