//! The counters of one thread.

use std::mem::offset_of;
use std::ptr;

use super::atomic::Ordering::{self, Acquire, Relaxed, Release};
use super::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, POWERS, constructor, zeros};
use super::countdown::{Countdown, take};
use super::peak::{Peak, STEP};
use super::sampler::{Random, Sampler};
use super::totals::{CLASSES, ThreadCounts, Totals};

/// The counters of one thread. Only the owner writes, so that adding is a load and a store; any thread may read.
///
/// A reader that sees a deallocation must also see its allocation: deallocations are therefore stored with `Release` and
/// read first. That keeps the bytes in use from falling below zero, and is free on x86-64.
///
/// A slot has pairs of cache lines for itself. The fields that other threads look at in passing, `is_owned` and `next`, lie
/// behind the counters of the largest allocations, which are rare.
#[repr(C, align(128))]
pub(super) struct Slot {
    /// Twice the bytes allocated, less one for each allocation. The size class is found from the same number, so that the
    /// hot path computes one.
    doubled: Countdown,
    deallocated: Countdown,
    /// Bytes that reallocations handed out.
    reallocated: Countdown,
    deallocations: AtomicU64,
    reallocations: AtomicU64,
    /// The bytes in use of this slot that the peak knows of.
    published: AtomicIsize,
    /// Allocations of at most 2^index bytes, and more than half of that. They add up to the number of allocations, which
    /// therefore needs no counter. The last one is not read: see [`LAST_POWER`].
    powers: [AtomicU64; POWERS],
    /// The samples that are due along `doubled` and along `reallocated`.
    alloc_sampler: Sampler,
    realloc_sampler: Sampler,
    random: Random,
    pub(super) is_owned: AtomicBool,
    pub(super) next: AtomicPtr<Slot>,
}

/// The threads that add to a slot.
#[derive(Clone, Copy)]
pub(super) enum Writer {
    /// The thread that owns it.
    Owner,
    /// Any thread, at any time.
    Anyone,
}

impl Writer {
    #[inline(always)]
    fn add(self, counter: &AtomicU64, amount: u64, ordering: Ordering) {
        match self {
            Writer::Owner => counter.store(counter.load(Relaxed).wrapping_add(amount), ordering),
            Writer::Anyone => _ = counter.fetch_add(amount, ordering),
        }
    }

    fn add_to(self, countdown: &Countdown, amount: u64, grant: impl FnOnce(u64) -> usize) {
        match self {
            Writer::Owner => countdown.add(amount, grant),
            Writer::Anyone => countdown.add_shared(amount),
        }
    }
}

/// The bytes of a call that the hot path counted before it found that too little was left.
#[derive(Clone, Copy, Default)]
pub(super) struct AlreadyCounted {
    new: u64,
    old: u64,
}

/// Returns what an allocation adds to [`Slot::doubled`]. Never zero: a size is at least 1 and fits an `isize`.
#[inline(always)]
pub(super) fn doubled(size: usize) -> usize {
    size.wrapping_mul(2).wrapping_sub(1)
}

/// Returns the exponent of the power of two that a size is rounded up to: 16 bytes are still 2^4.
#[inline(always)]
fn power(doubled: usize) -> usize {
    // Numbers with more bits belong to sizes that share the last counter.
    u32::try_from(doubled).unwrap_or(u32::MAX).checked_ilog2().unwrap_or(0) as usize
}

/// Returns the same for the hot path, where at most [`STEP`](super::peak::STEP) is left and the upper bits are zero, unless
/// the call is about to fail.
#[inline(always)]
fn small_power(doubled: usize) -> usize {
    power(doubled as u32 as usize)
}

/// The number of counters that the hot path may add to: it never takes more than [`STEP`].
const SMALL_POWERS: usize = STEP.ilog2() as usize + 1;

/// The counter of the largest allocations.
///
/// The hot path takes twice the size as a signed number, and therefore also takes requests of 2^62 bytes or more, which
/// always fail and are taken back. Until then it has counted them by the lower bits of their size: the usual one, of
/// `isize::MAX` bytes, in the counter after this one.
const LAST_POWER: usize = POWERS.saturating_sub(2);

/// Returns true if an allocation is too large for the hot path.
#[inline(always)]
pub(super) fn is_large(doubled: usize) -> bool {
    power(doubled) >= SMALL_POWERS
}

impl Slot {
    constructor! { fn new() -> Self {
        Slot::of([Countdown::new(), Countdown::new(), Countdown::new()])
    } }

    // A slot that the hot path cannot count in.
    constructor! { fn closed() -> Self {
        Slot::of([Countdown::closed(), Countdown::closed(), Countdown::closed()])
    } }

    constructor! { fn of(countdowns: [Countdown; 3]) -> Self {
        let [doubled, deallocated, reallocated] = countdowns;
        Slot {
            doubled,
            deallocated,
            reallocated,
            deallocations: AtomicU64::new(0),
            reallocations: AtomicU64::new(0),
            published: AtomicIsize::new(0),
            powers: zeros(),
            alloc_sampler: Sampler::new(),
            realloc_sampler: Sampler::new(),
            random: Random::new(),
            is_owned: AtomicBool::new(true),
            next: AtomicPtr::new(ptr::null_mut()),
        }
    } }

    /// Closes a slot again that the hot path may have tried to count in.
    pub(super) fn close(&self) {
        self.doubled.close();
        self.deallocated.close();
        self.reallocated.close();
    }

    // The hot path, on the thread that owns the slot. Where it returns false, too little is left for the call. The call's
    // number is not counted then, and `already_counted_*` returns which bytes are.

    /// Counts a call of `alloc` or `alloc_zeroed`.
    #[inline(always)]
    pub(super) fn take_alloc(&self, doubled: usize) -> bool {
        // SAFETY:
        // * A countdown lies there.
        let taken = unsafe { take::<_, { offset_of!(Slot, doubled) }>(self, doubled) };
        if taken {
            self.count_power(small_power(doubled), Writer::Owner);
        }
        taken
    }

    /// Counts a call of `dealloc`.
    #[inline(always)]
    pub(super) fn take_dealloc(&self, size: usize) -> bool {
        // SAFETY:
        // * A countdown lies there.
        let taken = unsafe { take::<_, { offset_of!(Slot, deallocated) }>(self, size) };
        if taken {
            Writer::Owner.add(&self.deallocations, 1, Release);
        }
        taken
    }

    /// Counts a call of `realloc`.
    #[inline(always)]
    pub(super) fn take_realloc(&self, old: usize, new: usize) -> bool {
        // SAFETY:
        // * Countdowns lie there.
        let taken = unsafe {
            take::<_, { offset_of!(Slot, reallocated) }>(self, new)
                && take::<_, { offset_of!(Slot, deallocated) }>(self, old)
        };
        if taken {
            Writer::Owner.add(&self.reallocations, 1, Relaxed);
        }
        taken
    }

    pub(super) fn already_counted_alloc(&self, doubled: usize) -> AlreadyCounted {
        AlreadyCounted { new: self.doubled.drain(doubled), old: 0 }
    }

    pub(super) fn already_counted_dealloc(&self, size: usize) -> AlreadyCounted {
        AlreadyCounted { new: 0, old: self.deallocated.drain(size) }
    }

    pub(super) fn already_counted_realloc(&self, old: usize, new: usize) -> AlreadyCounted {
        if self.reallocated.is_overdrawn() {
            AlreadyCounted { new: self.reallocated.drain(new), old: 0 }
        } else {
            AlreadyCounted { new: new as u64, old: self.deallocated.drain(old) }
        }
    }

    // The heap profile, in the slow path: the weight of a sample, if one is due in the call. `mean` is in bytes.

    pub(super) fn draw_alloc(&self, doubled: usize, already: AlreadyCounted, mean: u64) -> Option<f64> {
        let start = self.doubled.own_total().wrapping_sub(already.new);
        self.alloc_sampler.draw(&self.random, start, doubled as u64, mean.saturating_mul(2))
    }

    pub(super) fn draw_realloc(&self, new: usize, already: AlreadyCounted, mean: u64) -> Option<f64> {
        let start = self.reallocated.own_total().wrapping_sub(already.new);
        self.realloc_sampler.draw(&self.random, start, new as u64, mean)
    }

    fn grant_alloc(&self, total: u64) -> usize {
        self.alloc_sampler.grant(total, STEP)
    }

    fn grant_realloc(&self, total: u64) -> usize {
        self.realloc_sampler.grant(total, STEP / 2)
    }

    // The slow path: counts calls of any size, without the bytes that are counted already.

    pub(super) fn count_alloc(&self, doubled: usize, already: AlreadyCounted, writer: Writer) {
        writer.add_to(&self.doubled, (doubled as u64).wrapping_sub(already.new), |total| {
            self.grant_alloc(total)
        });
        self.count_power(power(doubled).min(LAST_POWER), writer);
    }

    #[inline(always)]
    fn count_power(&self, power: usize, writer: Writer) {
        if let Some(counter) = self.powers.get(power.min(POWERS - 1)) {
            writer.add(counter, 1, Relaxed);
        }
    }

    pub(super) fn count_dealloc(&self, size: usize, already: AlreadyCounted, writer: Writer) {
        writer.add_to(&self.deallocated, (size as u64).wrapping_sub(already.old), |_| STEP);
        writer.add(&self.deallocations, 1, Release);
    }

    pub(super) fn count_realloc(&self, old: usize, new: usize, already: AlreadyCounted, writer: Writer) {
        writer.add_to(&self.reallocated, (new as u64).wrapping_sub(already.new), |total| {
            self.grant_realloc(total)
        });
        writer.add_to(&self.deallocated, (old as u64).wrapping_sub(already.old), |_| STEP);
        writer.add(&self.reallocations, 1, Relaxed);
    }

    // A call that failed: takes back what was counted of it.

    /// Takes back an allocation of which the slow path found some bytes counted.
    pub(super) fn uncount_alloc(&self, already: AlreadyCounted) {
        self.doubled.add(already.new.wrapping_neg(), |total| self.grant_alloc(total));
    }

    /// Takes back a reallocation of which the slow path found some bytes counted.
    pub(super) fn uncount_realloc(&self, already: AlreadyCounted) {
        self.deallocated.add(already.old.wrapping_neg(), |_| STEP);
        self.reallocated.add(already.new.wrapping_neg(), |total| self.grant_realloc(total));
    }

    /// Takes back an allocation that [`take_alloc`](Self::take_alloc) counted.
    pub(super) fn untake_alloc(&self, doubled: usize) {
        self.uncount_alloc(AlreadyCounted { new: doubled as u64, old: 0 });
        if let Some(counter) = self.powers.get(small_power(doubled).min(POWERS - 1)) {
            Writer::Owner.add(counter, 1_u64.wrapping_neg(), Relaxed);
        }
    }

    /// Takes back a reallocation that [`take_realloc`](Self::take_realloc) counted.
    pub(super) fn untake_realloc(&self, old: usize, new: usize) {
        self.uncount_realloc(AlreadyCounted { new: new as u64, old: old as u64 });
        Writer::Owner.add(&self.reallocations, 1_u64.wrapping_neg(), Relaxed);
    }

    // The owner's view.

    /// Publishes by how much the bytes in use have changed since the last time, if that is `least` or more.
    pub(super) fn publish(&self, peak: &Peak, least: usize) {
        // Negative where the thread frees the memory of others.
        let used = self.allocated().wrapping_sub(self.deallocated.own_total()) as isize;
        let change = used.wrapping_sub(self.published.load(Relaxed));
        if change.unsigned_abs() >= least {
            self.published.store(used, Relaxed);
            peak.add(change);
        }
    }

    fn allocated(&self) -> u64 {
        bytes(self.doubled.own_total(), self.allocations(), self.reallocated.own_total())
    }

    fn allocations(&self) -> u64 {
        self.powers.iter().fold(0, |sum, class| sum.wrapping_add(class.load(Relaxed)))
    }

    /// Returns the counts, given how many of the owner's allocations are [large](is_large). The smaller ones have few
    /// counters, which are quickly added up.
    #[inline]
    pub(super) fn counts(&self, large: u64) -> ThreadCounts {
        let small = self.powers.iter().take(SMALL_POWERS);
        let allocations = small.fold(large, |sum, class| sum.wrapping_add(class.load(Relaxed)));
        let allocated = bytes(self.doubled.own_total(), allocations, self.reallocated.own_total());
        ThreadCounts { allocated, allocations }
    }

    /// Returns a number that is quickly read and changes with every byte that is allocated.
    #[inline]
    pub(super) fn progress(&self) -> u64 {
        self.doubled.own_total().wrapping_add(self.reallocated.own_total())
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.add_freed(&mut totals);
        self.add_others(&mut totals);
        totals
    }

    // Any thread's view.

    pub(super) fn add_freed(&self, totals: &mut Totals) {
        totals.deallocated = totals.deallocated.wrapping_add(self.deallocated.total());
        totals.deallocations = totals.deallocations.wrapping_add(self.deallocations.load(Acquire));
    }

    pub(super) fn add_others(&self, totals: &mut Totals) {
        let doubled = self.doubled.total();
        let mut allocations: u64 = 0;
        for (power, counter) in self.powers.iter().enumerate().take(LAST_POWER + 1) {
            let count = counter.load(Relaxed);
            allocations = allocations.wrapping_add(count);
            if let Some(class) = totals.classes.get_mut(class_of(power)) {
                *class = class.wrapping_add(count);
            }
        }
        totals.allocated =
            totals.allocated.wrapping_add(bytes(doubled, allocations, self.reallocated.total()));
        totals.reallocations = totals.reallocations.wrapping_add(self.reallocations.load(Relaxed));
    }
}

/// Returns the bytes allocated. While the owner allocates, the result lies between those before and after.
fn bytes(doubled: u64, allocations: u64, reallocated: u64) -> u64 {
    (doubled.wrapping_add(allocations) / 2).wrapping_add(reallocated)
}

/// Returns the size class of a power of two. Pairs of them make the powers of four from 16 on.
fn class_of(power: usize) -> usize {
    power.div_ceil(2).saturating_sub(2).min(CLASSES - 1)
}

#[cfg(all(test, not(model), target_pointer_width = "64"))]
mod tests {
    use super::*;

    /// Reads between the count and the failure of requests whose double is negative as a signed number.
    #[test]
    fn a_request_that_must_fail_is_not_seen_before_it_is_taken_back() {
        for size in [isize::MAX as usize, (isize::MAX as usize / 4) * 3, (1 << 62) + 3] {
            let slot = Slot::new();
            slot.count_alloc(doubled(100), AlreadyCounted::default(), Writer::Owner);
            let before = slot.totals();
            assert_eq!((before.allocated, before.allocations()), (100, 1));
            assert!(
                slot.take_alloc(doubled(size)),
                "it is not refused, which would cost the common path a test"
            );
            let during = slot.totals();
            assert!(during.allocated.abs_diff(100) <= STEP as u64 / 2, "{size}: {during:?}");
            assert!(during.allocations() <= 2, "{size}: {during:?}");
            slot.untake_alloc(doubled(size));
            assert_eq!(slot.totals(), before, "{size}");
        }
        let slot = Slot::new();
        slot.count_alloc(doubled(100), AlreadyCounted::default(), Writer::Owner);
        assert!(slot.take_alloc(doubled(isize::MAX as usize)));
        assert_eq!(slot.totals().allocations(), 1, "the usual request is not seen at all");
    }
}
