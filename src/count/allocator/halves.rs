//! A 64-bit counter for machines whose widest atomic has 32 bits.

use super::atomic::Ordering;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// The high half is written before and after the low one: a reader that finds both the same, looking at them in the
/// opposite order, has not been overtaken by a carry.
pub(super) struct Halves {
    before: AtomicU32,
    low: AtomicU32,
    after: AtomicU32,
}

impl Halves {
    pub(super) const fn new(value: u64) -> Self {
        let high = (value >> 32) as u32;
        Halves {
            before: AtomicU32::new(high),
            low: AtomicU32::new(value as u32),
            after: AtomicU32::new(high),
        }
    }

    pub(super) fn load(&self, _: Ordering) -> u64 {
        loop {
            let after = self.after.load(Acquire);
            let low = self.low.load(Acquire);
            let before = self.before.load(Acquire);
            if before == after {
                return u64::from(before) << 32 | u64::from(low);
            }
        }
    }

    pub(super) fn store(&self, value: u64, _: Ordering) {
        let high = (value >> 32) as u32;
        self.before.store(high, Relaxed);
        self.low.store(value as u32, Release);
        self.after.store(high, Release);
    }

    /// A reader that comes between the two steps of a carry sees the counter 2^32 short.
    pub(super) fn fetch_add(&self, amount: u64, _: Ordering) {
        let (low, high) = (amount as u32, (amount >> 32) as u32);
        let carry = self.low.fetch_add(low, AcqRel).checked_add(low).is_none();
        let high = high.wrapping_add(u32::from(carry));
        if high != 0 {
            self.before.fetch_add(high, Release);
            self.after.fetch_add(high, Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn it_carries() {
        let counter = Halves::new(u64::from(u32::MAX) - 1);
        counter.fetch_add(1, Relaxed);
        assert_eq!(counter.load(Relaxed), u64::from(u32::MAX));
        counter.fetch_add(1, Relaxed);
        assert_eq!(counter.load(Relaxed), 1 << 32);
        counter.fetch_add((7 << 32) + 5, Relaxed);
        assert_eq!(counter.load(Relaxed), (8 << 32) + 5);
        counter.store(u64::MAX, Relaxed);
        assert_eq!(counter.load(Relaxed), u64::MAX);
    }

    #[test]
    fn a_reader_is_never_overtaken_by_a_carry() {
        let counter = &Halves::new(0);
        thread::scope(|scope| {
            scope.spawn(|| (0..1_000_000).for_each(|i| counter.store(i << 31, Relaxed)));
            let mut last = 0;
            while last < 999_999 << 31 {
                let now = counter.load(Relaxed);
                assert!(now >= last, "{now:x} after {last:x}");
                last = now;
            }
        });
    }
}
