//! The sums over all slots.

/// The number of size classes: the powers of four from 16 bytes to 4 MiB, and one for larger sizes.
pub(crate) const CLASSES: usize = 11;

/// The sums of all counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// In bytes, like the next two.
    pub(crate) allocated: u64,
    pub(crate) deallocated: u64,
    pub(crate) peak: u64,
    /// Allocations by size class.
    pub(crate) classes: [u64; CLASSES],
    pub(crate) deallocations: u64,
    pub(crate) reallocations: u64,
    pub(crate) failures: u64,
}

impl Totals {
    /// Raises each sum to at least its value in later totals. Those can be lower while an allocation is about to fail, which
    /// was counted and is being taken back. Numbers that are derived from two sums then fit what was reported of both.
    pub(crate) fn raise(&mut self, later: &Totals) {
        let raise = |sum: &mut u64, later: u64| *sum = (*sum).max(later);
        raise(&mut self.allocated, later.allocated);
        raise(&mut self.deallocated, later.deallocated);
        raise(&mut self.peak, later.peak);
        self.classes.iter_mut().zip(later.classes).for_each(|(sum, later)| raise(sum, later));
        raise(&mut self.deallocations, later.deallocations);
        raise(&mut self.reallocations, later.reallocations);
        raise(&mut self.failures, later.failures);
    }

    /// Returns the bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.allocated.saturating_sub(self.deallocated)
    }

    pub(crate) fn allocations(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Returns the number of live allocations.
    pub(crate) fn live(&self) -> u64 {
        self.allocations().saturating_sub(self.deallocations)
    }
}

/// The allocations of one thread. Only differences mean anything, since a thread continues the counters of one that has
/// ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadCounts {
    /// In bytes.
    pub(crate) allocated: u64,
    pub(crate) allocations: u64,
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn sums_do_not_fall_and_their_difference_follows_them() {
        let with_a_failing_call = Totals {
            allocated: 300,
            deallocated: 100,
            classes: [3; CLASSES],
            deallocations: 1,
            ..Totals::default()
        };
        let taken_back = Totals {
            allocated: 290,
            deallocated: 120,
            classes: [2; CLASSES],
            deallocations: 2,
            ..Totals::default()
        };
        let mut reported = with_a_failing_call;
        reported.raise(&taken_back);
        assert_eq!((reported.allocated, reported.deallocated, reported.used()), (300, 120, 180));
        let allocations = 3 * CLASSES as u64;
        assert_eq!((reported.allocations(), reported.live()), (allocations, allocations - 2));
        assert_eq!(reported.reallocations, 0);
    }
}
