//! Records, finds and removes samples.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::filter::Filter;
use super::sites::{Key, SiteTotals, Sites};
use super::table::{self, Record, Table};
use super::{memory, probes};
use crate::stack;

/// All samples of the process, from the first start of a heap profile on.
static STORE: OnceLock<Store> = OnceLock::new();

/// The addresses of all samples, and of some other blocks.
static FILTER: Filter = Filter::new();

/// Returns the number of the task that the calling thread polls. Set once, since tasks know the allocator and not the
/// other way round.
static CURRENT_TASK: OnceLock<fn() -> Option<u32>> = OnceLock::new();

thread_local! {
    /// True while [`without_samples`] runs. Without a destructor, hence there to the very end of the thread.
    static IS_OFF: Cell<bool> = const { Cell::new(false) };
}

struct Store {
    table: Table,
    sites: Sites,
    /// Samples for which there was no place.
    dropped: AtomicU64,
}

/// A sample that was taken out, and is counted as freed by [`end`].
pub(crate) struct Taken(table::Taken);

impl Taken {
    /// Returns the alignment that the inner allocator was asked for.
    pub(crate) fn align(&self) -> usize {
        self.0.record.align()
    }
}

/// Prepares for samples in at most so many bytes. Returns false if there is no memory. Does nothing the second time.
pub(crate) fn prepare(max_memory: usize, current_task: fn() -> Option<u32>) -> bool {
    CURRENT_TASK.get_or_init(|| current_task);
    if STORE.get().is_some() {
        return true;
    }
    let Some(store) = Store::new(max_memory) else { return false };
    STORE.get_or_init(|| store);
    true
}

/// Calls a function whose allocations are no samples. Looking up names takes more memory for a moment than many a program, and
/// would hide the program's own.
pub(crate) fn without_samples<R>(call: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IS_OFF.set(self.0);
        }
    }
    let _restore = Restore(IS_OFF.replace(true));
    call()
}

/// Records a block as a sample, with the stack of the calling thread. Returns false if there is no place for it.
pub(crate) fn record(ptr: *mut u8, size: usize, align: usize, weight: f64) -> bool {
    let Some(store) = STORE.get().filter(|_| !IS_OFF.get()) else { return false };
    let mut frames = [0; stack::MAX_FRAMES];
    let walked = stack::here(&mut frames);
    let key = Key {
        frames: frames.get(..walked.len).unwrap_or_default(),
        is_cut: walked.is_cut,
        task: CURRENT_TASK.get().and_then(|current| current()),
        thread: memory::thread_name(),
    };
    store.record(ptr, size, align, weight, &key)
}

/// Returns the alignment that the inner allocator was asked for, if a block is a sample.
#[inline(always)]
pub(crate) fn align_of(ptr: *mut u8) -> Option<usize> {
    if !FILTER.may_contain(ptr.addr()) {
        return None;
    }
    STORE.get()?.table.find(ptr.addr()).map(|record| record.align())
}

/// Takes a block out of the samples, if it is one. Its place is kept until [`end`] or [`put_back`].
#[inline(always)]
pub(crate) fn take(ptr: *mut u8) -> Option<Taken> {
    if !FILTER.may_contain(ptr.addr()) {
        return None;
    }
    STORE.get()?.take(ptr)
}

/// Ends a sample that was taken out, since its block is freed.
pub(crate) fn end(ptr: *mut u8, taken: &Taken) {
    if let Some(store) = STORE.get() {
        store.end(ptr, &taken.0);
    }
}

/// Undoes [`take`], since the block is still alive.
pub(crate) fn put_back(ptr: *mut u8, taken: &Taken) {
    Table::put_back(&taken.0, ptr.addr());
}

/// Calls `visit` with the sums of each place.
pub(crate) fn for_each_site(visit: impl FnMut(&SiteTotals)) {
    if let Some(store) = STORE.get() {
        store.sites.for_each(visit);
    }
}

/// Returns the variance of the estimated bytes in use.
pub(crate) fn variance_in_use() -> f64 {
    let mut sum = 0.0;
    if let Some(store) = STORE.get() {
        store.table.for_each(|record| sum += record.variance());
    }
    sum
}

/// Returns the number of samples for which there was no place.
pub(crate) fn dropped() -> u64 {
    STORE.get().map_or(0, |store| store.dropped.load(Relaxed))
}

impl Store {
    fn new(max_memory: usize) -> Option<Self> {
        let words = memory::map(max_memory)?;
        // Half for the samples, half for the places.
        let (table, sites) = words.split_at_checked(words.len() / 2)?;
        Some(Store { table: Table::new(table), sites: Sites::new(sites)?, dropped: AtomicU64::new(0) })
    }

    fn record(&self, ptr: *mut u8, size: usize, align: usize, weight: f64, key: &Key<'_>) -> bool {
        let is_recorded = self
            .sites
            .intern(key)
            .is_some_and(|site| self.insert(ptr, Record::new(site, size, align, weight)));
        if !is_recorded {
            self.dropped.fetch_add(1, Relaxed);
        }
        is_recorded
    }

    fn insert(&self, ptr: *mut u8, record: Record) -> bool {
        FILTER.add(ptr.addr());
        let is_inserted = self.table.insert(ptr.addr(), &record);
        if is_inserted {
            self.sites.add(record.site(), record.objects(), record.bytes(), record.variance());
            probes::alloc(ptr, record.size(), record.bytes());
        } else {
            FILTER.remove(ptr.addr());
        }
        is_inserted
    }

    // Out of line, so that a page-aligned block that is no sample costs little.
    #[inline(never)]
    fn take(&self, ptr: *mut u8) -> Option<Taken> {
        self.table.take(ptr.addr()).map(Taken)
    }

    fn end(&self, ptr: *mut u8, taken: &table::Taken) {
        let record = &taken.record;
        Table::free(taken);
        FILTER.remove(ptr.addr());
        self.sites.subtract(record.site(), record.objects(), record.bytes());
        probes::free(ptr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::allocator::samples::FRACTION;

    const MEMORY: usize = 1 << 20;

    fn key(frames: &[usize]) -> Key<'_> {
        Key { frames, is_cut: false, task: None, thread: 0 }
    }

    fn block(index: usize) -> *mut u8 {
        std::ptr::without_provenance_mut((index + 1) * 4096)
    }

    /// Frees a block and returns its alignment, if it was a sample.
    fn remove(store: &Store, ptr: *mut u8) -> Option<usize> {
        let taken = store.take(ptr)?;
        store.end(ptr, &taken.0);
        Some(taken.align())
    }

    fn sums(store: &Store) -> Vec<SiteTotals> {
        let mut all = Vec::new();
        store.sites.for_each(|site| all.push(site.clone()));
        all
    }

    #[test]
    fn bytes_in_use_are_those_allocated_less_those_freed() {
        let store = Store::new(MEMORY).unwrap();
        for index in 0..1000 {
            let frames = [index % 7, 1];
            assert!(store.record(block(index), 100 + index, 4096, 3.3, &key(&frames)));
        }
        for index in (0..1000).step_by(3) {
            assert_eq!(remove(&store, block(index)), Some(4096));
            assert!(remove(&store, block(index)).is_none(), "twice");
        }
        let all = sums(&store);
        assert_eq!(all.len(), 7);
        let (mut objects, mut bytes) = (0, 0);
        store.table.for_each(|record| {
            objects += record.objects();
            bytes += record.bytes();
        });
        assert_eq!(all.iter().map(|site| site.allocated.objects - site.freed.objects).sum::<u64>(), objects);
        assert_eq!(all.iter().map(|site| site.allocated.bytes - site.freed.bytes).sum::<u64>(), bytes);
        for index in 0..1000 {
            remove(&store, block(index));
        }
        assert!(sums(&store).iter().all(|site| site.allocated.bytes > 0 && site.allocated == site.freed));
    }

    #[test]
    fn a_sample_that_is_put_back_was_never_freed() {
        let store = Store::new(MEMORY).unwrap();
        assert!(store.record(block(0), 100, 8, 2.0, &key(&[1])));
        let before = sums(&store);
        let taken = store.take(block(0)).unwrap();
        assert!(store.take(block(0)).is_none(), "it is taken out");
        // Other samples want its place meanwhile.
        (1..2000).for_each(|index| _ = store.record(block(index), 1, 8, 1.0, &key(&[2])));
        (1..2000).for_each(|index| _ = remove(&store, block(index)));
        Table::put_back(&taken.0, block(0).addr());
        let sum = |all: &[SiteTotals]| {
            let site = all.iter().find(|site| site.frames == [1]).unwrap();
            (site.allocated, site.freed)
        };
        assert_eq!(sum(&sums(&store)), sum(&before));
        assert_eq!(remove(&store, block(0)), Some(8));
        let after = sum(&sums(&store));
        assert_eq!(after.0, after.1);
    }

    #[test]
    fn places_differ_in_stack_task_and_thread() {
        let store = Store::new(MEMORY).unwrap();
        let keys = [
            Key { frames: &[1, 2], is_cut: false, task: None, thread: 0 },
            Key { frames: &[1, 2], is_cut: true, task: None, thread: 0 },
            Key { frames: &[1, 2], is_cut: false, task: Some(0), thread: 0 },
            Key { frames: &[1, 2], is_cut: false, task: None, thread: 7 },
            Key { frames: &[1], is_cut: false, task: None, thread: 0 },
            Key { frames: &[], is_cut: false, task: None, thread: 0 },
        ];
        for round in 0..2 {
            for (index, key) in keys.iter().enumerate() {
                assert!(store.record(block(round * keys.len() + index), 10, 8, 1.0, key));
            }
        }
        let all = sums(&store);
        assert_eq!(all.len(), keys.len());
        for key in &keys {
            let same = |site: &&SiteTotals| {
                site.frames == key.frames
                    && (site.is_cut, site.task, site.thread) == (key.is_cut, key.task, key.thread)
            };
            let site = all.iter().find(same).unwrap();
            assert_eq!((site.allocated.objects, site.allocated.bytes), (2 << FRACTION, 20));
        }
    }

    #[test]
    fn a_full_table_drops_samples_and_keeps_the_others() {
        let store = Store::new(MEMORY).unwrap();
        let mut kept = Vec::new();
        let mut index = 0;
        while store.dropped.load(Relaxed) < 1000 {
            if store.record(block(index), 10, 4096, 1.0, &key(&[1])) {
                kept.push(index);
            }
            index += 1;
        }
        // Half of the memory is for samples, of four words each.
        assert!(kept.len() > MEMORY / 2 / 32 / 2, "{}", kept.len());
        assert!(kept.iter().all(|index| remove(&store, block(*index)).is_some()));
        assert!(sums(&store).iter().all(|site| site.allocated == site.freed));
        assert!(store.record(block(index), 10, 4096, 1.0, &key(&[1])), "there is place again");
    }

    #[test]
    fn places_beyond_the_memory_are_dropped() {
        let store = Store::new(MEMORY).unwrap();
        let mut index = 0;
        while store.record(block(index % 100), 10, 4096, 1.0, &key(&[index, 1, 2, 3])) {
            assert!(remove(&store, block(index % 100)).is_some());
            index += 1;
        }
        assert!(index > 1000);
        assert_eq!(store.dropped.load(Relaxed), 1);
        assert!(store.record(block(0), 10, 4096, 1.0, &key(&[0, 1, 2, 3])), "a place that is known");
        assert_eq!(sums(&store).len(), index);
    }

    #[test]
    fn threads_share_the_store() {
        let store = &Store::new(MEMORY).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for round in 0..5_000 {
                        let own = block(thread * 100 + round % 100);
                        let frames = [round % 50, 1];
                        let is_recorded = store.record(own, round + 1, 4096, 2.0, &key(&frames));
                        assert_eq!(remove(store, own).is_some(), is_recorded);
                    }
                });
            }
        });
        let all = sums(store);
        assert_eq!(all.len(), 50, "each place once");
        assert!(all.iter().all(|site| site.allocated == site.freed));
        assert_eq!(
            all.iter().map(|site| site.allocated.objects).sum::<u64>(),
            ((20_000 - store.dropped.load(Relaxed)) * 2) << FRACTION
        );
    }
}
