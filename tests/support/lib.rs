//! Helpers that several test programs, the benchmarks and the demo share.

pub mod built;
pub mod child;
pub mod collector;
#[cfg(unix)]
pub mod fork;
pub mod go;
pub mod http;
pub mod log;
pub mod otlp_profile;
pub mod pace;
pub mod proxy;
pub mod random;
pub mod reader;
pub mod receiver;
pub mod runtimes;
pub mod scripted;
#[cfg(unix)]
pub mod signals;
pub mod skip;
pub mod snapshot;
pub mod tasks;
