//! What the exporting thread is asked for.

use std::sync::mpsc::SyncSender;
use std::time::Instant;

use crate::otlp::error::Error;

/// An export now.
pub(in crate::otlp) struct Request {
    pub(in crate::otlp) is_last: bool,
    /// When the caller gives up.
    pub(in crate::otlp) deadline: Instant,
    pub(in crate::otlp) reply: SyncSender<Result<(), Error>>,
}
