//! Time as it can be kept in an atomic: since a moment of this process, never zero.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub(super) fn now() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().max(Duration::from_nanos(1))
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
