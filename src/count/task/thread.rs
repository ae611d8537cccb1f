//! What each thread keeps: its counters, and what the poll in progress has used.

use std::cell::Cell;

use super::clock;
use super::counters::{Event, Slab, Slabs, Tally};
use super::names::NameId;
use super::settings::is_slow;
use crate::count::allocator::{self, ThreadCounts};

/// What all threads have counted.
pub(crate) static SLABS: Slabs = Slabs::new();

thread_local! {
    /// Without a destructor, hence there to the very end of the thread.
    static THREAD: Thread = const { Thread { slab: Cell::new(None), charged: Cell::new(Usage::NONE) } };
    static LEAVE: Leave = const { Leave };
}

struct Thread {
    slab: Cell<Option<&'static Slab>>,
    /// What has been charged to polls that have ended on this thread, each without those within it.
    charged: Cell<Usage>,
}

/// Leaves the thread's slab to the next thread.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(slab) = THREAD.with(|thread| thread.slab.take()) {
            SLABS.leave(slab);
        }
    }
}

/// Counts something once.
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
    if let Some(tally) = slab.and_then(|slab| slab.tally(name)).or_else(|| first_tally(slab, name)) {
        add(tally);
    }
}

#[cold]
fn first_tally(slab: Option<&'static Slab>, name: NameId) -> Option<Tally<'static>> {
    unseen(|| match slab {
        Some(slab) => slab.first_tally(name),
        // Thread-locals with a destructor are gone when it has run, and this thread's slab with it.
        None if LEAVE.try_with(|_| ()).is_err() => SLABS.late().first_tally(name),
        None => {
            let slab = SLABS.join();
            THREAD.with(|thread| thread.slab.set(Some(slab)));
            slab.first_tally(name)
        }
    })
}

/// Does what must not count as the memory of the task that happens to be polled.
pub(crate) fn unseen<R>(work: impl FnOnce() -> R) -> R {
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

    /// Nothing says that the clocks of two CPUs agree to the tick, or that a poll ends on the thread where it began.
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

/// A poll in progress. Polls that begin and end within it are measured apart: their usage is theirs alone.
#[derive(Clone, Copy)]
pub(crate) struct Measure {
    /// What the thread had used that was not charged to any poll, when this one began.
    uncharged: Usage,
    start: u64,
}

impl Measure {
    #[cfg_attr(not(tokio_unstable), allow(dead_code, reason = "the frames of Tokio's hooks begin with it"))]
    pub(crate) const NONE: Measure = Measure { uncharged: Usage::NONE, start: 0 };

    #[inline]
    pub(crate) fn start() -> Self {
        let charged = THREAD.with(|thread| thread.charged.get());
        let now = Usage::now();
        Measure { uncharged: now.minus(charged), start: now.ticks }
    }

    /// Ends the poll and counts it, unless another one within it has taken its place.
    #[inline]
    pub(crate) fn end(self, name: Option<NameId>) {
        let now = Usage::now();
        let own = THREAD.with(|thread| {
            let charged = thread.charged.get();
            let own = now.minus(charged).minus(self.uncharged).not_below_zero();
            thread.charged.set(charged.plus(own));
            own
        });
        let Some(name) = name else { return };
        with_tally(name, |tally| {
            tally.add(Event::Polls, 1);
            tally.add(Event::BusyTicks, own.ticks);
            tally.add(Event::Allocated, own.allocated);
            tally.add(Event::Allocations, own.allocations);
            if is_slow(now.ticks.saturating_sub(self.start)) {
                tally.add(Event::SlowPolls, 1);
            }
        });
    }
}
