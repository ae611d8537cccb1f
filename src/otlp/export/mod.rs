//! The exporting thread: when it exports, what it tries again and what it reports.

mod delivery;
mod outage;
pub(crate) mod reader;
mod request;
mod worker;
