//! The counters: for each name a block on each thread, which that thread alone writes and anyone may read.

use std::sync::{OnceLock, PoisonError};

use super::names::NameId;
use super::sync::Ordering::{Acquire, Relaxed, Release};
use super::sync::{AtomicU64, Mutex, MutexGuard, constructor};

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Completed,
    Cancelled,
    Panicked,
    /// Ended under the hooks, which do not tell how.
    Ended,
    Spawned,
    Polls,
    SlowPolls,
    BusyTicks,
    ScheduledTicks,
    Allocated,
    Allocations,
}

impl Event {
    const COUNT: usize = Event::Allocations as usize + 1;
    pub(crate) const ENDS: [Event; 4] = [Event::Completed, Event::Cancelled, Event::Panicked, Event::Ended];
}

/// The counters of one name on one thread. Two threads' blocks share no cache line.
#[repr(align(64))]
struct Block([AtomicU64; Event::COUNT]);

impl Block {
    fn new() -> Self {
        Block(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// Where a thread counts what belongs to one name.
#[derive(Clone, Copy)]
pub(crate) struct Tally<'a> {
    block: &'a Block,
    /// Whether this thread is the only one to write there.
    own: bool,
}

impl Tally<'_> {
    /// Released, so that whoever sees a task's end sees the spawn that came before it.
    #[inline]
    pub(crate) fn add(self, event: Event, count: u64) {
        let Some(counter) = self.block.0.get(event as usize) else { return };
        if self.own {
            counter.store(counter.load(Relaxed).wrapping_add(count), Release);
        } else {
            counter.fetch_add(count, Release);
        }
    }
}

/// The blocks that one thread writes, by name. They come into being in chunks that double in size, so that a
/// few names cost little and any of many is found in no time.
pub(crate) struct Slab {
    chunks: [OnceLock<Box<[Block]>>; Slab::CHUNKS],
    shared: bool,
}

impl Slab {
    const FIRST: usize = 8;
    const CHUNKS: usize = 13;
    /// How many names there is room for.
    pub(crate) const NAMES: usize = Slab::FIRST * ((1 << Slab::CHUNKS) - 1);

    const fn new(shared: bool) -> Self {
        Slab { chunks: [const { OnceLock::new() }; Slab::CHUNKS], shared }
    }

    /// The number of the chunk and the place in it.
    #[inline]
    fn place(name: usize) -> (usize, usize) {
        let from_first = name + Slab::FIRST;
        let chunk = (from_first / Slab::FIRST).ilog2() as usize;
        (chunk, from_first - (Slab::FIRST << chunk))
    }

    #[inline]
    fn block(&self, name: usize) -> Option<&Block> {
        let (chunk, place) = Slab::place(name);
        self.chunks.get(chunk)?.get()?.get(place)
    }

    /// Where to count for a name, once something has been counted for it or one of its neighbours.
    #[inline]
    pub(crate) fn tally(&self, name: NameId) -> Option<Tally<'_>> {
        self.block(name.index()).map(|block| Tally { block, own: !self.shared })
    }

    /// The same, from the first time on.
    #[cold]
    pub(crate) fn first_tally(&self, name: NameId) -> Option<Tally<'_>> {
        let (chunk, _) = Slab::place(name.index());
        self.chunks.get(chunk)?.get_or_init(|| (0..Slab::FIRST << chunk).map(|_| Block::new()).collect());
        self.tally(name)
    }
}

/// The slabs of all threads. A thread that ends leaves its slab to the next one that starts, with the counts in
/// it: nothing is lost, and memory is bounded by the largest number of threads alive at once.
pub(crate) struct Slabs {
    lists: Mutex<Lists>,
    /// For what a thread counts after it has left its slab, in the destructors of its thread-locals.
    late: Slab,
}

struct Lists {
    all: Vec<&'static Slab>,
    free: Vec<&'static Slab>,
}

impl Slabs {
    constructor! { fn new() -> Self {
        Slabs { lists: Mutex::new(Lists { all: Vec::new(), free: Vec::new() }), late: Slab::new(true) }
    } }

    /// A slab for a thread's own use, until it leaves it.
    pub(crate) fn join(&self) -> &'static Slab {
        let mut lists = self.lock();
        if let Some(slab) = lists.free.pop() {
            return slab;
        }
        let slab: &'static Slab = Box::leak(Box::new(Slab::new(false)));
        lists.all.push(slab);
        // So that leaving need not allocate.
        let missing = lists.all.len() - lists.free.len();
        lists.free.reserve(missing);
        slab
    }

    pub(crate) fn leave(&self, slab: &'static Slab) {
        self.lock().free.push(slab);
    }

    /// Where a thread counts that has no slab any more.
    pub(crate) fn late(&self) -> &Slab {
        &self.late
    }

    /// Adds up what all threads have counted, for each name.
    ///
    /// All ends are read before any spawn, and no thread joins in between, so that no end is seen without its
    /// spawn. The time that it takes depends on names and threads, never on tasks.
    pub(crate) fn sum(&self, totals: &mut [Totals]) {
        let lists = self.lock();
        let slabs = || lists.all.iter().copied().chain([&self.late]);
        totals.fill(Totals::default());
        for (name, total) in totals.iter_mut().enumerate() {
            let ends = Event::ENDS.map(|end| end as usize);
            slabs().for_each(|slab| total.add(slab, name, |event| ends.contains(&event)));
        }
        for (name, total) in totals.iter_mut().enumerate() {
            let ends = Event::ENDS.map(|end| end as usize);
            slabs().for_each(|slab| total.add(slab, name, |event| !ends.contains(&event)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all threads have counted for one name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals([u64; Event::COUNT]);

impl Totals {
    pub(crate) fn of(&self, event: Event) -> u64 {
        self.0.get(event as usize).copied().unwrap_or_default()
    }

    /// How many tasks have ended in any way.
    pub(crate) fn ended(&self) -> u64 {
        Event::ENDS.iter().map(|end| self.of(*end)).sum()
    }

    fn add(&mut self, slab: &Slab, name: usize, which: impl Fn(usize) -> bool) {
        let Some(block) = slab.block(name) else { return };
        for (event, (total, counter)) in self.0.iter_mut().zip(&block.0).enumerate() {
            if which(event) {
                *total = total.wrapping_add(counter.load(Acquire));
            }
        }
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_block_of_its_own() {
        let slab = Slab::new(false);
        let mut seen = std::collections::HashSet::new();
        for name in (0..1000).chain([Slab::NAMES - 1]) {
            let tally = slab.first_tally(NameId::new(name)).unwrap();
            assert!(seen.insert(std::ptr::from_ref(tally.block)), "{name}");
        }
        assert!(slab.first_tally(NameId::new(Slab::NAMES)).is_none());
    }

    #[test]
    fn what_a_thread_counted_outlives_it_and_its_slab_goes_to_the_next() {
        let slabs = Slabs::new();
        for _ in 0..10 {
            let slab = slabs.join();
            slab.first_tally(NameId::new(3)).unwrap().add(Event::Polls, 2);
            slabs.leave(slab);
        }
        let mut totals = vec![Totals::default(); 4];
        slabs.sum(&mut totals);
        assert_eq!(totals[3].of(Event::Polls), 20);
        assert_eq!(slabs.lock().all.len(), 1);
    }

    #[test]
    fn threads_that_have_left_count_together() {
        let slabs = Slabs::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let tally = slabs.late().first_tally(NameId::new(0)).unwrap();
                    (0..10_000).for_each(|_| tally.add(Event::Spawned, 1));
                });
            }
        });
        let mut totals = [Totals::default()];
        slabs.sum(&mut totals);
        assert_eq!(totals[0].of(Event::Spawned), 40_000);
    }
}
