//! What holds for the tasks of the whole process: they know no meter.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::clock;

static SLOW_POLL_NANOS: AtomicU64 = AtomicU64::new(10_000_000);
static SCHEDULED_TIME: AtomicBool = AtomicBool::new(false);

/// From when on a poll is slow.
pub(crate) fn set_slow_poll_threshold(threshold: Duration) {
    SLOW_POLL_NANOS.store(u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX), Relaxed);
}

/// Whether a poll of that length is slow.
#[inline]
pub(crate) fn is_slow(ticks: u64) -> bool {
    // Time-stamp counters make more than a tick in eight nanoseconds: most polls need no conversion to be told
    // to be fast.
    let threshold = SLOW_POLL_NANOS.load(Relaxed);
    ticks >= threshold / 8 && clock::nanos(ticks) >= threshold
}

/// Whether the time between wake and poll is measured.
pub(crate) fn set_scheduled_time(on: bool) {
    SCHEDULED_TIME.store(on, Relaxed);
}

#[inline]
pub(crate) fn scheduled_time() -> bool {
    SCHEDULED_TIME.load(Relaxed)
}
