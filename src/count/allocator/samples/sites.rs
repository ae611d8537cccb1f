//! The places where samples were allocated, and the sums of each place.

use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use super::atomic::{AtomicU64, AtomicUsize};

/// The number of bits of a number of allocations behind the binary point.
pub(crate) const FRACTION: u32 = 16;

/// The identity of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    /// Return addresses, leaf first.
    pub(super) frames: &'a [usize],
    /// True if the root end is missing.
    pub(super) is_cut: bool,
    /// The number of the task that was polled.
    pub(super) task: Option<u32>,
    /// The bytes of the thread's name.
    pub(super) thread: u128,
}

impl Key<'_> {
    fn hash(&self) -> u64 {
        let (low, high) = (self.thread as u64, (self.thread >> 64) as u64);
        let others = [self.attributes(), low, high];
        let words = self.frames.iter().map(|frame| *frame as u64).chain(others);
        words.fold(0, |hash: u64, word| (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// The task, if there is one, the length of the stack, and whether it is cut.
    fn attributes(&self) -> u64 {
        let task = self.task.map_or(0, |task| u64::from(task) + 1);
        task << 16 | (self.frames.len() as u64) << 1 | u64::from(self.is_cut)
    }
}

/// A number of allocations, with [`FRACTION`] bits behind the point, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// A place with its sums.
#[derive(Clone, Debug)]
pub(crate) struct SiteTotals {
    pub(crate) frames: Vec<usize>,
    pub(crate) is_cut: bool,
    pub(crate) task: Option<u32>,
    pub(crate) thread: u128,
    /// Estimates.
    pub(crate) allocated: Sum,
    pub(crate) freed: Sum,
    /// The variance of the bytes allocated.
    pub(crate) variance: f64,
}

impl SiteTotals {
    /// Returns the estimate of what is in use.
    pub(crate) fn in_use(&self) -> Sum {
        Sum {
            objects: self.allocated.objects.saturating_sub(self.freed.objects),
            bytes: self.allocated.bytes.saturating_sub(self.freed.bytes),
        }
    }
}

/// The number of a place: the index of its first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site(pub(super) u32);

/// The words of a place, before those of its stack.
#[derive(Clone, Copy)]
enum Field {
    /// The next place with the same head, 0 for none.
    Next,
    Hash,
    Attributes,
    ThreadLow,
    ThreadHigh,
    AllocatedObjects,
    AllocatedBytes,
    FreedObjects,
    FreedBytes,
    /// The bits of an `f64`.
    Variance,
}

const HEADER: usize = Field::Variance as usize + 1;

/// All places. They are added and never removed.
pub(super) struct Sites {
    /// The newest place of each hash.
    heads: &'static [AtomicU64],
    words: &'static [AtomicU64],
    /// The index of the first word that is free. 0 is no place.
    free: AtomicUsize,
}

impl Sites {
    pub(super) fn new(words: &'static [AtomicU64]) -> Option<Self> {
        // One in 64 words for heads, since few places share one then: a place has at least 10 words and mostly 40.
        let heads = (words.len() / 64).checked_ilog2()?;
        let (heads, words) = words.split_at_checked(1 << heads)?;
        Some(Sites { heads, words, free: AtomicUsize::new(1) })
    }

    fn word(&self, site: Site, field: Field) -> Option<&AtomicU64> {
        self.words.get(site.0 as usize + field as usize)
    }

    fn load(&self, site: Site, field: Field) -> u64 {
        self.word(site, field).map_or(0, |word| word.load(Relaxed))
    }

    fn frames(&self, site: Site) -> &[AtomicU64] {
        let first = site.0 as usize + HEADER;
        let len = (self.load(site, Field::Attributes) >> 1 & 0x7FFF) as usize;
        self.words.get(first..first + len).unwrap_or_default()
    }

    /// Returns a place and those with the same head that were added before it.
    fn chain(&self, newest: u64) -> impl Iterator<Item = Site> {
        let site = |index: u64| (index != 0).then_some(Site(index as u32));
        std::iter::successors(site(newest), move |this| site(self.load(*this, Field::Next)))
    }

    fn is(&self, site: Site, hash: u64, key: &Key<'_>) -> bool {
        self.load(site, Field::Hash) == hash
            && self.load(site, Field::Attributes) == key.attributes()
            && self.load(site, Field::ThreadLow) == key.thread as u64
            && self.load(site, Field::ThreadHigh) == (key.thread >> 64) as u64
            && self.frames(site).iter().map(|word| word.load(Relaxed) as usize).eq(key.frames.iter().copied())
    }

    /// Returns the place of a key, and adds it if it is new. `None` if there is no memory for it.
    pub(super) fn intern(&self, key: &Key<'_>) -> Option<Site> {
        let hash = key.hash();
        // The bits in the middle are well mixed, and the number of heads is a power of two.
        let head = self.heads.get((hash >> 20) as usize & (self.heads.len() - 1))?;
        let mut newest = head.load(Acquire);
        let find = |newest| self.chain(newest).find(|site| self.is(*site, hash, key));
        if let Some(site) = find(newest) {
            return Some(site);
        }
        let site = self.add_site(hash, key)?;
        loop {
            self.word(site, Field::Next)?.store(newest, Relaxed);
            match head.compare_exchange(newest, u64::from(site.0), AcqRel, Acquire) {
                Ok(_) => return Some(site),
                // Another thread has added a place: perhaps the same one. This one's memory is lost then, which is
                // rare, and not more than the place itself would have taken.
                Err(newer) => newest = newer,
            }
            if let Some(site) = find(newest) {
                return Some(site);
            }
        }
    }

    fn add_site(&self, hash: u64, key: &Key<'_>) -> Option<Site> {
        let len = HEADER + key.frames.len();
        let fits = |free: usize| (free + len <= self.words.len()).then_some(free + len);
        let first = self.free.fetch_update(Relaxed, Relaxed, fits).ok()?;
        let site = Site(u32::try_from(first).ok()?);
        self.word(site, Field::Hash)?.store(hash, Relaxed);
        self.word(site, Field::Attributes)?.store(key.attributes(), Relaxed);
        self.word(site, Field::ThreadLow)?.store(key.thread as u64, Relaxed);
        self.word(site, Field::ThreadHigh)?.store((key.thread >> 64) as u64, Relaxed);
        for (word, frame) in self.frames(site).iter().zip(key.frames) {
            word.store(*frame as u64, Relaxed);
        }
        Some(site)
    }

    /// Adds a sample to the sums of a place.
    pub(super) fn add(&self, site: Site, objects: u64, bytes: u64, variance: f64) {
        let add = |field, amount| self.word(site, field).map(|word| word.fetch_add(amount, Relaxed));
        add(Field::AllocatedObjects, objects);
        add(Field::AllocatedBytes, bytes);
        if let Some(word) = self.word(site, Field::Variance) {
            let sum = |bits| Some((f64::from_bits(bits) + variance).to_bits());
            _ = word.fetch_update(Relaxed, Relaxed, sum);
        }
    }

    /// Adds the end of a sample to the sums of a place. Stored with `Release`, so that a reader which sees the end of a
    /// sample sees its beginning.
    pub(super) fn subtract(&self, site: Site, objects: u64, bytes: u64) {
        let add = |field, amount| self.word(site, field).map(|word| word.fetch_add(amount, Release));
        add(Field::FreedObjects, objects);
        add(Field::FreedBytes, bytes);
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(&SiteTotals)) {
        for head in self.heads {
            for site in self.chain(head.load(Acquire)) {
                let acquire = |field| self.word(site, field).map_or(0, |word| word.load(Acquire));
                // The freed sums are read first, so that they do not exceed the allocated ones.
                let freed = Sum { bytes: acquire(Field::FreedBytes), objects: acquire(Field::FreedObjects) };
                let attributes = self.load(site, Field::Attributes);
                visit(&SiteTotals {
                    frames: self.frames(site).iter().map(|word| word.load(Relaxed) as usize).collect(),
                    is_cut: attributes & 1 != 0,
                    task: (attributes >> 16).checked_sub(1).and_then(|task| u32::try_from(task).ok()),
                    thread: u128::from(self.load(site, Field::ThreadHigh)) << 64
                        | u128::from(self.load(site, Field::ThreadLow)),
                    allocated: Sum {
                        objects: self.load(site, Field::AllocatedObjects),
                        bytes: self.load(site, Field::AllocatedBytes),
                    },
                    freed,
                    variance: f64::from_bits(self.load(site, Field::Variance)),
                });
            }
        }
    }
}
