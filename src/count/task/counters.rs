//! The counters: for each name a block on each thread, which only that thread writes and any thread may read.

use super::chunks::Chunks;
use super::name::NameId;
use super::sync::Ordering::{Acquire, Relaxed, Release};
use super::sync::{AtomicU32, AtomicU64, Mutex, constructor};

/// A counted event or amount.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Completed,
    Cancelled,
    Panicked,
    /// Ended under the hooks, which do not report the outcome.
    Ended,
    Spawned,
    Polls,
    SlowPolls,
    Stalls,
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

/// The place where a thread counts the events of one name.
#[derive(Clone, Copy)]
pub(crate) struct Tally<'a> {
    block: &'a Block,
    /// True if other threads write there too.
    shared: bool,
}

impl Tally<'_> {
    /// Adds to a counter. The store releases, so that a reader that sees a task's end also sees the spawn before it.
    #[inline]
    pub(crate) fn add(self, event: Event, count: u64) {
        let Some(counter) = self.block.0.get(event as usize) else { return };
        if self.shared {
            counter.fetch_add(count, Release);
        } else {
            counter.store(counter.load(Relaxed).wrapping_add(count), Release);
        }
    }
}

/// The counters that one thread writes: a block for each name, and the task that it polls.
pub(crate) struct Slab {
    blocks: Chunks<Block>,
    shared: bool,
    /// The name of the task that the thread polls, encoded; 0 for none.
    current: AtomicU32,
    /// The system's id of the thread; 0 where it is unknown or the slab is free.
    thread: AtomicU32,
}

impl Slab {
    constructor! { fn new(shared: bool) -> Self {
        Slab { blocks: Chunks::new(), shared, current: AtomicU32::new(0), thread: AtomicU32::new(0) }
    } }

    /// Returns the place to count for a name, once something was counted for it or for a neighbour.
    #[inline]
    pub(crate) fn tally(&self, name: NameId) -> Option<Tally<'_>> {
        self.blocks.get(name.index()).map(|block| Tally { block, shared: self.shared })
    }

    /// Returns the place to count for a name and allocates it if necessary.
    #[cold]
    pub(crate) fn first_tally(&self, name: NameId) -> Option<Tally<'_>> {
        let block = self.blocks.get_or_allocate(name.index(), Block::new)?;
        Some(Tally { block, shared: self.shared })
    }

    /// Returns the name of the task that the thread polls.
    #[inline]
    pub(crate) fn current(&self) -> Option<NameId> {
        NameId::decode(self.current.load(Relaxed))
    }

    /// Notes which task the thread polls. Only that thread may call it.
    #[inline]
    pub(crate) fn set_current(&self, name: Option<NameId>) {
        self.restore_current(NameId::encode(name));
    }

    /// Notes which task the thread polls, and returns the one before, encoded. Only that thread may call it.
    #[inline]
    pub(crate) fn replace_current(&self, name: Option<NameId>) -> u32 {
        let outer = self.current.load(Relaxed);
        if name.is_some() {
            self.set_current(name);
        }
        outer
    }

    /// Undoes [`replace_current`](Self::replace_current).
    #[inline]
    pub(crate) fn restore_current(&self, outer: u32) {
        self.current.store(outer, Relaxed);
    }
}

/// The slabs of all threads. A thread that ends releases its slab, with the counts in it, and the next thread that starts
/// claims it: no count is lost, and the largest number of threads alive at once bounds the memory.
pub(crate) struct Slabs {
    lists: Mutex<Lists>,
    /// For threads without a slab: those that have released theirs and still run destructors, and the watcher.
    shared: Slab,
}

struct Lists {
    all: Vec<&'static Slab>,
    free: Vec<&'static Slab>,
}

impl Slabs {
    constructor! { fn new() -> Self {
        Slabs { lists: Mutex::new(Lists { all: Vec::new(), free: Vec::new() }), shared: Slab::new(true) }
    } }

    /// Returns a slab for the sole use of a thread, until the thread releases it.
    pub(crate) fn claim(&self, thread: u32) -> &'static Slab {
        let mut lists = self.lists.lock();
        let slab = lists.free.pop().unwrap_or_else(|| {
            let slab: &'static Slab = Box::leak(Box::new(Slab::new(false)));
            lists.all.push(slab);
            // Reserves, so that a release does not allocate.
            let missing = lists.all.len() - lists.free.len();
            lists.free.reserve(missing);
            slab
        });
        slab.thread.store(thread, Relaxed);
        slab
    }

    pub(crate) fn release(&self, slab: &'static Slab) {
        slab.set_current(None);
        slab.thread.store(0, Relaxed);
        self.lists.lock().free.push(slab);
    }

    /// Returns the slab for threads that have none.
    pub(crate) fn shared(&self) -> &Slab {
        &self.shared
    }

    /// Returns the name of the task that a thread polls at this moment.
    pub(crate) fn current_of(&self, thread: u32) -> Option<NameId> {
        let lists = self.lists.lock();
        lists.all.iter().find(|slab| slab.thread.load(Relaxed) == thread)?.current()
    }

    /// Returns the name of the task that a thread polls at this moment, and how many polls of that name have ended on the
    /// thread. As long as both stay the same, the thread is in the same poll.
    pub(crate) fn current_poll_of(&self, thread: u32) -> Option<(NameId, u64)> {
        let lists = self.lists.lock();
        let slab = lists.all.iter().find(|slab| slab.thread.load(Relaxed) == thread)?;
        let name = slab.current()?;
        let polls = slab.blocks.get(name.index()).and_then(|block| block.0.get(Event::Polls as usize));
        Some((name, polls.map(|polls| polls.load(Relaxed)).unwrap_or_default()))
    }

    /// Adds up the counts of all threads for each name.
    ///
    /// It reads all ends before any spawn, and no thread claims a slab in between, so that no end is seen without its
    /// spawn. The time depends on names and threads, never on tasks.
    pub(crate) fn sum(&self, totals: &mut [Totals]) {
        let lists = self.lists.lock();
        let slabs = || lists.all.iter().copied().chain([&self.shared]);
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
}

/// The counts of one name, of all threads together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals([u64; Event::COUNT]);

impl Totals {
    pub(crate) fn of(&self, event: Event) -> u64 {
        self.0.get(event as usize).copied().unwrap_or_default()
    }

    /// Returns how many tasks have ended, however they ended.
    pub(crate) fn ended(&self) -> u64 {
        Event::ENDS.iter().map(|end| self.of(*end)).sum()
    }

    fn add(&mut self, slab: &Slab, name: usize, which: impl Fn(usize) -> bool) {
        let Some(block) = slab.blocks.get(name) else { return };
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
    fn each_name_has_its_own_block() {
        let slab = Slab::new(false);
        let mut seen = std::collections::HashSet::new();
        for name in (0..1000).chain([Chunks::CAPACITY - 1]) {
            let tally = slab.first_tally(NameId::new(name)).unwrap();
            assert!(seen.insert(std::ptr::from_ref(tally.block)), "{name}");
        }
        assert!(slab.first_tally(NameId::new(Chunks::CAPACITY)).is_none());
    }

    #[test]
    fn counts_outlive_their_thread_and_the_slab_goes_to_the_next_thread() {
        let slabs = Slabs::new();
        for _ in 0..10 {
            let slab = slabs.claim(0);
            slab.first_tally(NameId::new(3)).unwrap().add(Event::Polls, 2);
            slabs.release(slab);
        }
        let mut totals = vec![Totals::default(); 4];
        slabs.sum(&mut totals);
        assert_eq!(totals[3].of(Event::Polls), 20);
        assert_eq!(slabs.lists.lock().all.len(), 1);
    }

    #[test]
    fn threads_without_a_slab_count_together() {
        let slabs = Slabs::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let tally = slabs.shared().first_tally(NameId::new(0)).unwrap();
                    (0..10_000).for_each(|_| tally.add(Event::Spawned, 1));
                });
            }
        });
        let mut totals = [Totals::default()];
        slabs.sum(&mut totals);
        assert_eq!(totals[0].of(Event::Spawned), 40_000);
    }

    #[test]
    fn another_thread_can_read_the_polled_task() {
        let slabs = Slabs::new();
        let slab = slabs.claim(7);
        assert_eq!(slabs.current_of(7), None);
        slab.set_current(Some(NameId::new(3)));
        assert_eq!(slabs.current_of(7), Some(NameId::new(3)));
        assert_eq!(slabs.current_of(8), None);
        slabs.release(slab);
        assert_eq!(slabs.current_of(7), None);
    }
}
