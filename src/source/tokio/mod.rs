//! `tokio.*`: the watched runtimes.

mod runtime;
mod runtimes;
mod source;
mod table;

pub(crate) use runtimes::Runtimes;
pub use runtimes::WatchedRuntime;
pub(crate) use source::source;
pub(crate) use table::TABLE;
