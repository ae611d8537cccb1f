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
