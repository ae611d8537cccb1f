//! Helpers that several test programs, the benchmarks and the demo share.

pub mod built;
pub mod child;
pub mod collector;
pub mod http;
pub mod log;
pub mod pace;
pub mod proxy;
pub mod reader;
pub mod receiver;
pub mod runtimes;
pub mod scripted;
pub mod skip;
pub mod snapshot;
pub mod tasks;
