//! Binds the table to the runtimes that are watched.

use std::sync::Arc;

use super::runtimes::Runtimes;
use super::table::TABLE;
use crate::source::table::Source;

/// The most values of a histogram that one collection records: some 30 ms of work. The others wait for the next one.
const MAX_PER_COLLECTION: u64 = 1_000_000;

/// Returns the source of all runtimes that are watched.
pub(crate) fn source(runtimes: &Arc<Runtimes>) -> Source {
    let [any, replayed] = [runtimes, runtimes].map(Arc::clone);
    let runtimes = Arc::clone(runtimes);
    TABLE
        .on(false, move |visit| runtimes.visit(visit))
        .when(move || !any.is_empty())
        .replayed_by(move |metric, record| replayed.replay(metric, MAX_PER_COLLECTION, record))
}
