//! The requests to the exporting thread.

use std::sync::mpsc::SyncSender;
use std::time::Instant;

use crate::otlp::error::Error;

/// An export now.
pub(crate) struct Request {
    pub(crate) is_last: bool,
    /// The moment at which the caller gives up.
    pub(crate) deadline: Instant,
    pub(crate) reply: SyncSender<Result<(), Error>>,
}
