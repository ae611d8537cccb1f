//! Helpers that several test programs, the benchmarks and the demo share.

pub mod built;
pub mod child;
pub mod collector;
#[cfg(unix)]
pub mod fork;
pub mod go;
#[cfg(feature = "receiver")]
pub mod grpc;
pub mod http;
pub mod log;
#[cfg(feature = "receiver")]
pub mod otlp_profile;
pub mod pace;
pub mod proxy;
pub mod random;
pub mod reader;
#[cfg(feature = "receiver")]
pub mod receiver;
pub mod runtimes;
pub mod scripted;
#[cfg(unix)]
pub mod signals;
pub mod skip;
pub mod snapshot;
#[cfg(target_os = "linux")]
pub mod syscalls;
pub mod tasks;
