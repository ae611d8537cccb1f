//! What the slots add up to.

/// How many size classes there are: the powers of four from 16 bytes to 4 MiB, and what is larger.
pub(crate) const CLASSES: usize = 11;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Bytes, like the next and the peak.
    pub(crate) allocated: u64,
    pub(crate) deallocated: u64,
    pub(crate) peak: u64,
    /// Allocations by size.
    pub(crate) classes: [u64; CLASSES],
    pub(crate) deallocations: u64,
    pub(crate) reallocations: u64,
    pub(crate) failures: u64,
}

impl Totals {
    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.allocated.saturating_sub(self.deallocated)
    }

    pub(crate) fn allocations(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Allocations that are alive.
    pub(crate) fn live(&self) -> u64 {
        self.allocations().saturating_sub(self.deallocations)
    }
}
