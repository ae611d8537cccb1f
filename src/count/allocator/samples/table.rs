//! The live samples by address.

use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::atomic::{AtomicU64, AtomicUsize, WAYS, fence};
use super::sites::{FRACTION, Site};

/// A live sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Record {
    /// The place, and the exponent of the alignment in the lowest 8 bits.
    site_and_align: u64,
    size: u64,
    weight: f64,
}

impl Record {
    pub(super) fn new(site: Site, size: usize, align: usize, weight: f64) -> Self {
        let align = u64::from(align.trailing_zeros());
        Record { site_and_align: u64::from(site.0) << 8 | align, size: size as u64, weight }
    }

    pub(super) fn site(&self) -> Site {
        Site((self.site_and_align >> 8) as u32)
    }

    pub(super) fn align(&self) -> usize {
        1 << (self.site_and_align & 0x3F)
    }

    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    /// Returns how many allocations the sample stands for, with [`FRACTION`] bits behind the point.
    pub(super) fn objects(&self) -> u64 {
        (self.weight * (1_u64 << FRACTION) as f64).round() as u64
    }

    /// Returns how many bytes the sample stands for.
    pub(super) fn bytes(&self) -> u64 {
        (self.weight * self.size as f64).round() as u64
    }

    /// Returns what the sample adds to the variance of the estimated bytes: with weight 1/p, size² (1 - p) / p².
    pub(super) fn variance(&self) -> f64 {
        let size = self.size as f64;
        size * size * self.weight * (self.weight - 1.0)
    }
}

/// The states of a key that are no address.
const EMPTY: u64 = 0;
const RESERVED: u64 = 1;

/// The words of a record and its key.
const WORDS: usize = 4;

const MAX_LEVELS: usize = 6;

/// A hash table that is never moved: levels of growing size, so that a small number of samples takes a small amount of
/// memory. A level is used when an address has no free place in those before.
///
/// An address is inserted by the thread that allocated its block and removed by the one that frees it, so that no two
/// threads insert, look up or remove the same address at a time.
pub(super) struct Table {
    levels: [Level; MAX_LEVELS],
    /// The number of levels in use.
    depth: AtomicUsize,
}

/// A record that was taken out of the table, and its place.
pub(super) struct Taken {
    pub(super) record: Record,
    key: &'static AtomicU64,
}

#[derive(Clone, Copy)]
struct Level {
    keys: &'static [AtomicU64],
    records: &'static [AtomicU64],
}

impl Table {
    pub(super) fn new(mut words: &'static [AtomicU64]) -> Self {
        let mut levels = [Level { keys: &[], records: &[] }; MAX_LEVELS];
        let mut len = 512;
        for level in &mut levels {
            len *= 8;
            // The largest power of two that fits, if the memory is used up.
            let most = words.len() / WORDS;
            let Some(power) = most.checked_ilog2() else { break };
            len = len.min(1 << power);
            if len < WAYS {
                break;
            }
            let Some((keys, rest)) = words.split_at_checked(len) else { break };
            let Some((records, rest)) = rest.split_at_checked(len * (WORDS - 1)) else { break };
            *level = Level { keys, records };
            words = rest;
        }
        Table { levels, depth: AtomicUsize::new(1) }
    }

    /// Adds the record of an address. Returns false if there is no place for it.
    pub(super) fn insert(&self, address: usize, record: &Record) -> bool {
        for (index, level) in self.levels.iter().enumerate() {
            if index >= self.depth.load(Relaxed) && !level.keys.is_empty() {
                self.depth.fetch_max(index + 1, Relaxed);
            }
            if level.insert(address, record) {
                return true;
            }
        }
        false
    }

    pub(super) fn find(&self, address: usize) -> Option<Record> {
        let (level, index) = self.place(address)?;
        level.record(index)
    }

    /// Takes an address out. Its place stays reserved until [`free`](Self::free) or [`put_back`](Self::put_back).
    pub(super) fn take(&self, address: usize) -> Option<Taken> {
        let (level, index) = self.place(address)?;
        let record = level.record(index)?;
        let key = level.keys.get(index)?;
        key.store(RESERVED, Relaxed);
        Some(Taken { record, key })
    }

    /// Frees the place of an address that was taken out.
    pub(super) fn free(taken: &Taken) {
        taken.key.store(EMPTY, Release);
    }

    /// Undoes [`take`](Self::take).
    pub(super) fn put_back(taken: &Taken, address: usize) {
        taken.key.store(address as u64, Release);
    }

    fn place(&self, address: usize) -> Option<(&Level, usize)> {
        // The thread that inserted the address has raised the depth before it passed the address on.
        let used = self.levels.get(..self.depth.load(Relaxed))?;
        used.iter().find_map(|level| level.find(address).map(|index| (level, index)))
    }

    /// Calls `visit` with the records of all live samples. Those that come and go meanwhile may be missing, and the two
    /// records of an address that is freed and sampled again meanwhile may be mixed.
    pub(super) fn for_each(&self, mut visit: impl FnMut(Record)) {
        for level in &self.levels {
            for (index, key) in level.keys.iter().enumerate() {
                let address = key.load(Acquire);
                if address <= RESERVED {
                    continue;
                }
                let record = level.record(index);
                // If any word was of a later record, the key is seen to have changed.
                fence(Acquire);
                if key.load(Relaxed) == address {
                    record.into_iter().for_each(&mut visit);
                }
            }
        }
    }
}

impl Level {
    /// Returns the first place of an address.
    fn first(&self, address: usize) -> Option<usize> {
        let bits = (self.keys.len() / WAYS).checked_ilog2()?;
        // Fibonacci hashing: the top bits of the product are well mixed. Two steps, since a shift by 64 is none.
        let hash = (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1 >> (63 - bits);
        Some(hash as usize * WAYS)
    }

    fn ways(&self, address: usize) -> Option<(usize, &'static [AtomicU64])> {
        let first = self.first(address)?;
        Some((first, self.keys.get(first..first + WAYS)?))
    }

    fn find(&self, address: usize) -> Option<usize> {
        let (first, keys) = self.ways(address)?;
        keys.iter().position(|key| key.load(Acquire) == address as u64).map(|way| first + way)
    }

    fn insert(&self, address: usize, record: &Record) -> bool {
        let Some((first, keys)) = self.ways(address) else { return false };
        for (way, key) in keys.iter().enumerate() {
            if key.load(Relaxed) != EMPTY || key.compare_exchange(EMPTY, RESERVED, Acquire, Relaxed).is_err()
            {
                continue;
            }
            // A reader that sees a word from here on also sees that the place is reserved.
            fence(Release);
            if let Some([site, size, weight]) = self.words(first + way) {
                site.store(record.site_and_align, Relaxed);
                size.store(record.size, Relaxed);
                weight.store(record.weight.to_bits(), Relaxed);
            }
            key.store(address as u64, Release);
            return true;
        }
        false
    }

    fn words(&self, index: usize) -> Option<&[AtomicU64; WORDS - 1]> {
        self.records.get(index * (WORDS - 1)..)?.first_chunk()
    }

    fn record(&self, index: usize) -> Option<Record> {
        let [site, size, weight] = self.words(index)?;
        Some(Record {
            site_and_align: site.load(Relaxed),
            size: size.load(Relaxed),
            weight: f64::from_bits(weight.load(Relaxed)),
        })
    }
}
