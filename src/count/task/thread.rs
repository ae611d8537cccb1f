//! The state of each thread: its counters, the task that it polls, and what the poll in progress has used.

use std::cell::Cell;

use super::clock;
use super::counters::{Event, Slab, Slabs, Tally};
use super::name::NameId;
use super::run_delay::RunDelay;
use super::settings::{is_slow, is_slow_without};
use crate::count::allocator::{self, ThreadCounts};

/// The counts of all threads.
pub(crate) static SLABS: Slabs = Slabs::new();

thread_local! {
    /// It has no destructor, so that it can be used to the very end of the thread.
    static THREAD: Thread = const {
        Thread {
            slab: Cell::new(None),
            charged_ticks: Cell::new(0),
            charged_memory: Cell::new(Memory::NONE),
            run_delay: RunDelay::new(),
        }
    };
    static RELEASE: Release = const { Release };
}

struct Thread {
    slab: Cell<Option<&'static Slab>>,
    /// The sums of what polls that have ended on this thread were charged with, each without the polls within it.
    charged_ticks: Cell<u64>,
    charged_memory: Cell<Memory>,
    run_delay: RunDelay,
}

impl Thread {
    /// Returns the thread's slab and claims one first if necessary. `None` when the thread has released its slab.
    #[inline]
    fn slab(&self) -> Option<&'static Slab> {
        self.slab.get().or_else(claim)
    }
}

/// Releases the thread's slab to the next thread.
struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(slab) = THREAD.with(|thread| thread.slab.take()) {
            SLABS.release(slab);
        }
    }
}

#[cold]
#[inline(never)]
fn claim() -> Option<&'static Slab> {
    uncharged(|| {
        // Once the destructors of this thread's variables have run, nothing would release the slab.
        RELEASE.try_with(|_| ()).ok()?;
        let slab = SLABS.claim(system_thread_id());
        THREAD.with(|thread| thread.slab.set(Some(slab)));
        Some(slab)
    })
}

/// The id by which the operating system knows this thread; 0 where it is unknown.
fn system_thread_id() -> u32 {
    // `/proc/thread-self` is a link to `PID/task/TID`.
    let link = if cfg!(target_os = "linux") { std::fs::read_link("/proc/thread-self").ok() } else { None };
    link.and_then(|path| path.file_name()?.to_str()?.parse().ok()).unwrap_or_default()
}

/// Counts one event.
#[inline]
pub(crate) fn count(name: NameId, event: Event) {
    add(name, event, 1);
}

#[inline]
pub(crate) fn add(name: NameId, event: Event, count: u64) {
    with_tally(name, |tally| tally.add(event, count));
}

#[inline]
fn with_tally(name: NameId, add: impl FnOnce(Tally<'_>)) {
    THREAD.with(|thread| with_tally_of(thread, name, add));
}

#[inline]
fn with_tally_of(thread: &Thread, name: NameId, add: impl FnOnce(Tally<'_>)) {
    let slab = thread.slab.get();
    if let Some(tally) = slab.and_then(|slab| slab.tally(name)).or_else(|| first_tally(name)) {
        add(tally);
    }
}

#[cold]
#[inline(never)]
fn first_tally(name: NameId) -> Option<Tally<'static>> {
    let slab = THREAD.with(Thread::slab).unwrap_or(SLABS.shared());
    uncharged(|| slab.first_tally(name))
}

/// Counts a stall of a worker thread for the task that the thread polls now, and returns the task's name. `thread` is the
/// id by which the operating system knows the thread. `None` where the thread polls no task that has a name.
pub(crate) fn count_stall(thread: u32) -> Option<NameId> {
    let name = SLABS.current_of(thread)?;
    if let Some(tally) = SLABS.shared().first_tally(name) {
        tally.add(Event::Stalls, 1);
    }
    Some(name)
}

/// Returns the name of the task that this thread polls. It neither locks nor allocates nor panics: an allocator and a
/// signal handler may call it.
#[inline]
pub(crate) fn current() -> Option<NameId> {
    THREAD.with(|thread| thread.slab.get()?.current())
}

/// Runs what must not be charged to the task that is being polled.
pub(crate) fn uncharged<R>(work: impl FnOnce() -> R) -> R {
    let before = Memory::of_thread().1;
    let result = work();
    let used = Memory::of_thread().1.minus(before);
    THREAD.with(|thread| thread.charged_memory.set(thread.charged_memory.get().plus(used)));
    result
}

/// Allocations and their bytes.
#[derive(Clone, Copy)]
struct Memory(ThreadCounts);

impl Memory {
    const NONE: Memory = Memory(ThreadCounts { allocated: 0, allocations: 0 });

    /// Returns what this thread has allocated, and the progress by which a later allocation is seen.
    #[inline]
    fn of_thread() -> (u64, Self) {
        let (progress, counts) = allocator::thread_counts();
        (progress, Memory(counts))
    }

    #[inline]
    fn plus(self, other: Memory) -> Self {
        Memory(ThreadCounts {
            allocated: self.0.allocated.wrapping_add(other.0.allocated),
            allocations: self.0.allocations.wrapping_add(other.0.allocations),
        })
    }

    #[inline]
    fn minus(self, other: Memory) -> Self {
        Memory(ThreadCounts {
            allocated: self.0.allocated.wrapping_sub(other.0.allocated),
            allocations: self.0.allocations.wrapping_sub(other.0.allocations),
        })
    }

    /// A poll may end on another thread than it began.
    #[inline]
    fn not_below_zero(self) -> Self {
        let at_least_zero = |difference: u64| difference.cast_signed().max(0).cast_unsigned();
        Memory(ThreadCounts {
            allocated: at_least_zero(self.0.allocated),
            allocations: at_least_zero(self.0.allocations),
        })
    }
}

/// A poll in progress. Polls within it are measured separately, and their usage is not part of this one.
#[derive(Clone, Copy)]
pub(crate) struct Measure {
    /// In ticks.
    start: u64,
    /// What the thread had charged to polls at the start.
    charged_ticks: u64,
    /// Changes with the first allocation since the start.
    progress: u64,
    /// What the thread had allocated at the start, without the part charged to polls.
    uncharged: Memory,
    /// The task around this poll, encoded.
    outer: u32,
}

impl Measure {
    #[cfg_attr(not(tokio_unstable), allow(dead_code, reason = "only the frames of the hooks begin with it"))]
    pub(crate) const NONE: Measure =
        Measure { start: 0, charged_ticks: 0, progress: 0, uncharged: Memory::NONE, outer: 0 };

    /// Begins a poll of a task. `None` keeps the name of the poll around it.
    // Not inlined into the crates that make futures, where each access to the thread's state would be a call.
    #[inline(never)]
    pub(crate) fn start(name: Option<NameId>) -> Self {
        THREAD.with(|thread| {
            let outer = thread.slab().map_or(0, |slab| slab.replace_current(name));
            let (progress, allocated) = Memory::of_thread();
            let uncharged = allocated.minus(thread.charged_memory.get());
            let charged_ticks = thread.charged_ticks.get();
            let mut start = clock::ticks();
            if thread.run_delay.is_due(start) {
                thread.run_delay.refresh(start);
                start = clock::ticks();
            }
            Measure { start, charged_ticks, progress, uncharged, outer }
        })
    }

    /// Ends the poll and counts it under a name, and the end of the task if there is one. `None` counts it nowhere.
    #[inline(never)]
    pub(crate) fn end(&self, name: Option<NameId>, end: Option<Event>) {
        THREAD.with(|thread| {
            let (own, whole) = self.charge(thread);
            let allocated = allocator::thread_progress() != self.progress;
            let memory = if allocated { self.charge_memory(thread) } else { Memory::NONE };
            let Some(name) = name else { return };
            with_tally_of(thread, name, |tally| {
                tally.add(Event::Polls, 1);
                tally.add(Event::BusyTicks, own);
                if allocated {
                    tally.add(Event::Allocated, memory.0.allocated);
                    tally.add(Event::Allocations, memory.0.allocations);
                }
                if is_slow(whole) && is_slow_without_delay(whole) {
                    tally.add(Event::SlowPolls, 1);
                }
                // Last, so that a reader that sees the end also sees the poll.
                if let Some(end) = end {
                    tally.add(end, 1);
                }
            });
        });
    }

    /// Ends a stretch of work that holds no worker, such as a blocking closure: it is never a slow poll.
    pub(crate) fn end_blocking(self, name: NameId) {
        THREAD.with(|thread| {
            let (own, _) = self.charge(thread);
            let memory = self.charge_memory(thread);
            with_tally_of(thread, name, |tally| {
                tally.add(Event::Polls, 1);
                tally.add(Event::BusyTicks, own);
                tally.add(Event::Allocated, memory.0.allocated);
                tally.add(Event::Allocations, memory.0.allocations);
            });
        });
    }

    /// Returns how long the poll itself has taken, and how long with the polls within it.
    #[inline]
    fn charge(&self, thread: &Thread) -> (u64, u64) {
        // The clocks of two CPUs may differ by a tick.
        let whole = clock::ticks().saturating_sub(self.start);
        if let Some(slab) = thread.slab.get() {
            slab.restore_current(self.outer);
        }
        let charged = thread.charged_ticks.get();
        // A poll may end on another thread than it began.
        let own = whole.saturating_sub(charged.saturating_sub(self.charged_ticks));
        thread.charged_ticks.set(charged.wrapping_add(own));
        (own, whole)
    }

    /// Returns what the poll itself has allocated.
    #[inline(never)]
    fn charge_memory(&self, thread: &Thread) -> Memory {
        let charged = thread.charged_memory.get();
        let own = Memory::of_thread().1.minus(charged).minus(self.uncharged).not_below_zero();
        thread.charged_memory.set(charged.plus(own));
        own
    }
}

/// Returns whether a poll is slow even without the time in which its thread waited for a CPU.
#[cold]
#[inline(never)]
fn is_slow_without_delay(ticks: u64) -> bool {
    let delay = THREAD.with(|thread| thread.run_delay.since_refresh());
    is_slow_without(ticks, delay)
}
