//! The settings of the tasks. They apply to the whole process, since a named future knows no meter.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::clock;

static SLOW_POLL_NANOS: AtomicU64 = AtomicU64::new(10_000_000);
static SCHEDULED_TIME: AtomicBool = AtomicBool::new(false);

/// Sets the length from which a poll counts as slow.
pub(crate) fn set_slow_poll_threshold(threshold: Duration) {
    SLOW_POLL_NANOS.store(u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX), Relaxed);
}

/// Returns true if a poll of that length is slow.
#[inline]
pub(crate) fn is_slow(ticks: u64) -> bool {
    // A time-stamp counter makes more than one tick in eight nanoseconds: most polls are fast without a conversion.
    let threshold = SLOW_POLL_NANOS.load(Relaxed);
    ticks >= threshold / 8 && clock::nanos(ticks) >= threshold
}

/// Returns true if a poll of that length is slow without a part of it.
pub(crate) fn is_slow_without(ticks: u64, part: Duration) -> bool {
    let part = u64::try_from(part.as_nanos()).unwrap_or(u64::MAX);
    clock::nanos(ticks).saturating_sub(part) >= SLOW_POLL_NANOS.load(Relaxed)
}

/// Turns the measurement of the time between wake and poll on or off.
pub(crate) fn set_scheduled_time(on: bool) {
    SCHEDULED_TIME.store(on, Relaxed);
}

#[inline]
pub(crate) fn scheduled_time() -> bool {
    SCHEDULED_TIME.load(Relaxed)
}

/// Returns the length from which a poll counts as slow.
pub(crate) fn slow_poll_threshold() -> Duration {
    Duration::from_nanos(SLOW_POLL_NANOS.load(Relaxed))
}
