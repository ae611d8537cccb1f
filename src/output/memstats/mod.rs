//! Snapshots under the names of the fields of Go's `runtime.MemStats`.

mod fields;
mod pauses;

#[cfg(feature = "debug")]
pub(crate) use fields::MemStats;
pub(crate) use fields::{Line, Stats};
pub(crate) use pauses::Pauses;
