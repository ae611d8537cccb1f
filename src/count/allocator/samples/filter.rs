//! Says at once of most blocks that they are no samples.
//!
//! A block at the beginning of a page looks like a sample. An allocator that hands out the memory freed last hands out the
//! page of a former sample again and again, and each time the block is freed, it would be looked up in the table at some
//! 100 instructions. The filter answers in 10.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

const BITS: u32 = 14;

/// A count that is not known exactly any more, and stays.
const MANY: u8 = u8::MAX;

/// Counts the live samples by a hash of their page.
pub(super) struct Filter([AtomicU8; 1 << BITS]);

impl Filter {
    pub(super) const fn new() -> Self {
        Filter([const { AtomicU8::new(0) }; 1 << BITS])
    }

    #[inline(always)]
    fn count(&self, address: usize) -> Option<&AtomicU8> {
        let hash = (address as u64 >> 12).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - BITS);
        self.0.get(hash as usize)
    }

    /// Returns false if no sample has this address. The thread that allocated a sample has added it before it passed the
    /// block on, so that the one that frees it sees it.
    #[inline(always)]
    pub(super) fn may_contain(&self, address: usize) -> bool {
        self.count(address).is_some_and(|count| count.load(Relaxed) > 0)
    }

    pub(super) fn add(&self, address: usize) {
        if let Some(count) = self.count(address) {
            _ = count.fetch_update(Relaxed, Relaxed, |count| count.checked_add(1));
        }
    }

    pub(super) fn remove(&self, address: usize) {
        if let Some(count) = self.count(address) {
            let less = |count: u8| if count == MANY { None } else { count.checked_sub(1) };
            _ = count.fetch_update(Relaxed, Relaxed, less);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_nothing_that_is_there() {
        let filter = Filter::new();
        let addresses = || (0..1_000).map(|page| page * 4096 + 16);
        assert!(addresses().all(|address| !filter.may_contain(address)));
        // Some share a count, and one is counted more often than a byte can hold.
        addresses().for_each(|address| filter.add(address));
        (0..300).for_each(|_| filter.add(0));
        assert!(addresses().all(|address| filter.may_contain(address)));
        (0..300).for_each(|_| filter.remove(0));
        assert!(addresses().all(|address| filter.may_contain(address)));
        addresses().for_each(|address| filter.remove(address));
        assert!(filter.may_contain(0), "it is not known any more");
        assert!(addresses().filter(|address| filter.may_contain(*address)).count() < 5);
    }
}
