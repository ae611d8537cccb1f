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
        Thread { slab: Cell::new(None), charged: Cell::new(Usage::NONE), run_delay: RunDelay::new() }
    };
    static RELEASE: Release = const { Release };
}

struct Thread {
    slab: Cell<Option<&'static Slab>>,
    /// The sum of what polls that have ended on this thread were charged with, each without the polls within it.
    charged: Cell<Usage>,
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
    let slab = THREAD.with(|thread| thread.slab.get());
    if let Some(tally) = slab.and_then(|slab| slab.tally(name)).or_else(|| first_tally(name)) {
        add(tally);
    }
}

#[cold]
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
    let before = Usage::of(0, allocator::thread_counts());
    let result = work();
    let used = Usage::of(0, allocator::thread_counts()).minus(before);
    THREAD.with(|thread| thread.charged.set(thread.charged.get().plus(used)));
    result
}

/// Time, bytes and allocations.
#[derive(Clone, Copy)]
struct Usage {
    ticks: u64,
    allocated: u64,
    allocations: u64,
}

impl Usage {
    const NONE: Usage = Usage { ticks: 0, allocated: 0, allocations: 0 };

    #[inline]
    fn of(ticks: u64, memory: ThreadCounts) -> Self {
        Usage { ticks, allocated: memory.allocated, allocations: memory.allocations }
    }

    #[inline]
    fn now() -> Self {
        let memory = allocator::thread_counts();
        Usage::of(clock::ticks(), memory)
    }

    #[inline]
    fn plus(self, other: Usage) -> Self {
        Usage {
            ticks: self.ticks.wrapping_add(other.ticks),
            allocated: self.allocated.wrapping_add(other.allocated),
            allocations: self.allocations.wrapping_add(other.allocations),
        }
    }

    #[inline]
    fn minus(self, other: Usage) -> Self {
        Usage {
            ticks: self.ticks.wrapping_sub(other.ticks),
            allocated: self.allocated.wrapping_sub(other.allocated),
            allocations: self.allocations.wrapping_sub(other.allocations),
        }
    }

    /// The clocks of two CPUs may differ by a tick, and a poll may end on another thread than it began.
    #[inline]
    fn not_below_zero(self) -> Self {
        let at_least_zero = |difference: u64| difference.cast_signed().max(0).cast_unsigned();
        Usage {
            ticks: at_least_zero(self.ticks),
            allocated: at_least_zero(self.allocated),
            allocations: at_least_zero(self.allocations),
        }
    }
}

/// A poll in progress. Polls within it are measured separately, and their usage is not part of this one.
#[derive(Clone, Copy)]
pub(crate) struct Measure {
    /// The thread's usage at the start of the poll, without the part charged to other polls.
    uncharged: Usage,
    start: u64,
    /// The task around this poll, encoded.
    outer: u32,
}

impl Measure {
    #[cfg_attr(not(tokio_unstable), allow(dead_code, reason = "only the frames of the hooks begin with it"))]
    pub(crate) const NONE: Measure = Measure { uncharged: Usage::NONE, start: 0, outer: 0 };

    /// Begins a poll of a task. `None` keeps the name of the poll around it.
    #[inline]
    pub(crate) fn start(name: Option<NameId>) -> Self {
        THREAD.with(|thread| {
            let outer = thread.slab().map_or(0, |slab| slab.replace_current(name));
            let charged = thread.charged.get();
            let mut now = Usage::now();
            if thread.run_delay.is_due(now.ticks) {
                thread.run_delay.refresh(now.ticks);
                now.ticks = clock::ticks();
            }
            Measure { uncharged: now.minus(charged), start: now.ticks, outer }
        })
    }

    /// Ends the poll and counts it under a name. `None` counts it nowhere.
    #[inline]
    pub(crate) fn end(self, name: Option<NameId>) {
        let Some(name) = name else {
            self.charge();
            return;
        };
        let (own, whole) = self.charge();
        with_tally(name, |tally| {
            tally.add(Event::Polls, 1);
            tally.add(Event::BusyTicks, own.ticks);
            if own.allocations | own.allocated != 0 {
                tally.add(Event::Allocated, own.allocated);
                tally.add(Event::Allocations, own.allocations);
            }
            if is_slow(whole) && is_slow_without_delay(whole) {
                tally.add(Event::SlowPolls, 1);
            }
        });
    }

    /// Ends a stretch of work that holds no worker, such as a blocking closure: it is never a slow poll.
    pub(crate) fn end_blocking(self, name: NameId) {
        let (own, _) = self.charge();
        with_tally(name, |tally| {
            tally.add(Event::Polls, 1);
            tally.add(Event::BusyTicks, own.ticks);
            tally.add(Event::Allocated, own.allocated);
            tally.add(Event::Allocations, own.allocations);
        });
    }

    /// Returns what the poll itself has used, and how long it took with the polls within it.
    #[inline]
    fn charge(self) -> (Usage, u64) {
        let now = Usage::now();
        let own = THREAD.with(|thread| {
            if let Some(slab) = thread.slab.get() {
                slab.restore_current(self.outer);
            }
            let charged = thread.charged.get();
            let own = now.minus(charged).minus(self.uncharged).not_below_zero();
            thread.charged.set(charged.plus(own));
            own
        });
        (own, now.ticks.saturating_sub(self.start))
    }
}

/// Returns whether a poll is slow even without the time in which its thread waited for a CPU.
#[cold]
#[inline(never)]
fn is_slow_without_delay(ticks: u64) -> bool {
    let delay = THREAD.with(|thread| thread.run_delay.since_refresh());
    is_slow_without(ticks, delay)
}
