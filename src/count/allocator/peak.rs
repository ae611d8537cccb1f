//! The highest number of bytes in use, without anything shared on the hot path.

use super::atomic::{AtomicIsize, Ordering::Relaxed, constructor};
use super::slot::Slot;

/// How many bytes a thread frees before it looks how far it has drifted from what it last published. Half as many as it gets
/// by reallocations, and by allocations too, unless they are of a few bytes.
pub(super) const STEP: usize = 32 * 1024;

/// How far it must have drifted then to publish it.
pub(super) const LEAST: usize = 16 * 1024;

// The peak is off by at most so much for each live thread: by allocations of single bytes, and by reallocations.
const _: () = assert!(STEP + STEP / 2 + LEAST == 64 * 1024);

/// Signed and as wide as an address: a thread may publish that it freed what another has not yet published.
pub(super) struct Peak {
    published: AtomicIsize,
    highest: AtomicIsize,
}

impl Peak {
    constructor! { fn new() -> Self {
        Peak { published: AtomicIsize::new(0), highest: AtomicIsize::new(0) }
    } }

    /// Publishes what the slot's owner has come to use since the last time, if it is `least` bytes or more.
    pub(super) fn publish(&self, slot: &Slot, least: usize) {
        let used = slot.used();
        let drift = used.wrapping_sub(slot.published.load(Relaxed));
        if drift.unsigned_abs() >= least {
            slot.published.store(used, Relaxed);
            self.add(drift);
        }
    }

    /// Publishes a change of no particular thread's.
    pub(super) fn add(&self, change: isize) {
        self.raise(self.published.fetch_add(change, Relaxed).wrapping_add(change));
    }

    /// The highest so far, `used` included.
    pub(super) fn raise(&self, used: isize) -> isize {
        // Mostly it is not a new peak, and looking does not take the cache line away from the other threads.
        if used > self.highest.load(Relaxed) {
            self.highest.fetch_max(used, Relaxed).max(used)
        } else {
            self.highest.load(Relaxed)
        }
    }
}
