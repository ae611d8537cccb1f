//! The highest number of bytes in use, without anything shared on the hot path.

use super::atomic::{AtomicIsize, Ordering::Relaxed, constructor};

/// The number of bytes that a thread frees before it compares its bytes in use with what it last published. Half as many for bytes
/// that reallocations hand out, and for those of allocations, unless they are of a few bytes.
pub(super) const STEP: usize = 32 * 1024;

/// The least difference that a thread then publishes.
pub(super) const LEAST: usize = 16 * 1024;

// The peak is off by at most so much for each live thread: by allocations of single bytes, and by reallocations.
const _: () = assert!(STEP + STEP / 2 + LEAST == 64 * 1024);

/// The bytes in use that threads have published, and the highest such number.
///
/// Signed and as wide as an address, since a thread may publish that it freed what another has not published yet.
pub(super) struct Peak {
    published: AtomicIsize,
    highest: AtomicIsize,
}

impl Peak {
    constructor! { fn new() -> Self {
        Peak { published: AtomicIsize::new(0), highest: AtomicIsize::new(0) }
    } }

    /// Publishes a change of the bytes in use.
    pub(super) fn add(&self, change: isize) {
        self.raise(self.published.fetch_add(change, Relaxed).wrapping_add(change));
    }

    /// Returns the highest number so far, `used` included.
    pub(super) fn raise(&self, used: isize) -> isize {
        // Mostly this is no new peak, and a load does not take the cache line away from other threads.
        if used > self.highest.load(Relaxed) {
            self.highest.fetch_max(used, Relaxed).max(used)
        } else {
            self.highest.load(Relaxed)
        }
    }
}
