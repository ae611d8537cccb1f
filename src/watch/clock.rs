//! Time in a form that fits into an atomic: since a moment of this process, never zero.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(super) fn now() -> Duration {
    START.elapsed().max(Duration::from_nanos(1))
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the moment as std has it.
pub(super) fn instant(time: Duration) -> Instant {
    START.checked_add(time).unwrap_or(*START)
}
