//! A total that tells by itself when it is time to look at it.

use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::atomic::{AtomicIsize, AtomicU64, constructor, fence};

/// Counts what is added to it by counting down what may still be added, at most `STEP`, until somebody must look. So the
/// hot path has one number to change, whose sign tells whether that time has come.
///
/// Only the owner writes, except where nobody owns it; anyone may read.
#[repr(C)]
pub(super) struct Countdown<const STEP: usize> {
    /// How much may still be added. Less than zero, which means zero, from a [`take`] that failed to the
    /// [`forfeit`](Self::forfeit) that it makes due.
    left: AtomicIsize,
    /// Twice what the total is when nothing is left. With `RENEWING`, twice what it is when `STEP` is left, whatever is.
    granted: AtomicU64,
}

const RENEWING: u64 = 1;

/// What is left of what nobody may add to. So little that threads which write over each other don't come near zero.
const NEVER: isize = isize::MIN / 2;

impl<const STEP: usize> Countdown<STEP> {
    constructor! { fn new() -> Self {
        Countdown { left: AtomicIsize::new(0), granted: AtomicU64::new(0) }
    } }

    // One that nothing can be taken from.
    constructor! { fn closed() -> Self {
        Countdown { left: AtomicIsize::new(NEVER), granted: AtomicU64::new(0) }
    } }

    /// Makes up for what was tried to take from one that is closed.
    pub(super) fn close(&self) {
        self.left.store(NEVER, Relaxed);
    }

    /// Whether the last thing that was tried to take was too much.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.left.load(Relaxed) < 0
    }

    /// After an amount could not be taken: adds what is left, as the first part of it, and tells how much that was.
    pub(super) fn forfeit(&self, amount: usize) -> u64 {
        let left = self.left.load(Relaxed).wrapping_add(signed(amount));
        self.left.store(0, Release);
        left as u64
    }

    /// Adds an amount of any size, or subtracts it where it is negative in two's complement. Grants `STEP` anew, for the
    /// caller is the one who looks.
    pub(super) fn add(&self, amount: u64) {
        let granted = self.own_total().wrapping_add(amount).wrapping_add(STEP as u64) << 1;
        self.granted.store(granted | RENEWING, Release);
        // Whoever sees what is left from here on sees that it was renewed.
        fence(Release);
        self.left.store(STEP as isize, Relaxed);
        self.granted.store(granted, Release);
    }

    /// The owner's view, while nothing is overdrawn.
    #[inline]
    pub(super) fn own_total(&self) -> u64 {
        (self.granted.load(Relaxed) >> 1).wrapping_sub(self.left.load(Relaxed) as u64)
    }

    /// Adds an amount to one that nobody owns.
    pub(super) fn add_shared(&self, amount: u64) {
        self.granted.fetch_add(amount << 1, Release);
    }

    /// All that was added.
    ///
    /// This waits for nobody: it looks again only where the owner has gone on meanwhile, and what an owner left half done
    /// which is no more, as in a child after `fork`, is understood.
    pub(super) fn total(&self) -> u64 {
        loop {
            let granted = self.granted.load(Acquire);
            let left = self.left.load(Acquire).max(0) as u64;
            if self.granted.load(Relaxed) == granted {
                let left = if granted & RENEWING == 0 { left } else { STEP as u64 };
                return (granted >> 1).wrapping_sub(left);
            }
        }
    }
}

/// Adds an amount to the countdown that lies `AT` bytes into `holder`, if so much is left; if not, `forfeit` is due. Stores
/// with `Release`.
///
/// The load, the subtraction, the store and the test of the version for other machines below. The compiler makes twice as
/// many instructions of those, for it does not subtract in memory what it tests, where that is atomic.
///
/// # Safety
/// A countdown lies there.
#[inline(always)]
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", not(any(model, miri))))]
pub(super) unsafe fn take<T, const AT: usize>(holder: &T, amount: usize) -> bool {
    // SAFETY: the caller says so. What is left comes first in a countdown, and an aligned load or store is atomic. The
    // stack is not touched.
    unsafe {
        std::arch::asm!(
            "sub qword ptr [{holder} + {at}], {amount}",
            "jl {too_little}",
            holder = in(reg) holder,
            at = const AT,
            amount = in(reg) amount,
            too_little = label { return false },
            options(nostack),
        );
    }
    true
}

/// # Safety
/// A countdown lies there.
#[inline(always)]
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64", not(any(model, miri)))))]
pub(super) unsafe fn take<T, const AT: usize>(holder: &T, amount: usize) -> bool {
    // SAFETY: the caller says so.
    let left = unsafe { &(*(&raw const *holder).byte_add(AT).cast::<Countdown<0>>()).left };
    let (before, amount) = (left.load(Relaxed), signed(amount));
    // Where addresses have 32 bits, `NEVER` less an amount may be less than there is.
    let narrow = size_of::<usize>() < size_of::<u64>();
    let now = if narrow { before.saturating_sub(amount) } else { before.wrapping_sub(amount) };
    left.store(now, Release);
    now >= 0
}

/// An amount that is to be taken. Where addresses have 32 bits, twice a size may be too much for an `isize`, and far more
/// than is ever left.
#[inline(always)]
fn signed(amount: usize) -> isize {
    if size_of::<usize>() < size_of::<u64>() {
        amount.min(isize::MAX as usize) as isize
    } else {
        amount as isize
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    fn take<const STEP: usize>(countdown: &Countdown<STEP>, amount: usize) -> bool {
        // SAFETY: it is one.
        unsafe { super::take::<_, 0>(countdown, amount) }
    }

    #[test]
    fn what_is_left_can_be_taken_and_nothing_more() {
        let countdown = Countdown::<10>::new();
        assert!(!take(&countdown, 1), "nothing was granted");
        assert_eq!(countdown.forfeit(1), 0);
        countdown.add(1);
        assert_eq!(countdown.total(), 1);
        assert!(take(&countdown, 4) && take(&countdown, 6));
        assert_eq!(countdown.total(), 11);
        assert!(!take(&countdown, 1 << 40));
        assert!(countdown.is_overdrawn());
        assert_eq!(countdown.total(), 11, "not yet");
        assert_eq!(countdown.forfeit(1 << 40), 0);
        countdown.add(1 << 40);
        assert_eq!(countdown.total(), 11 + (1 << 40));
        assert!(!take(&countdown, 11));
        assert_eq!((countdown.forfeit(11), countdown.total()), (10, 21 + (1 << 40)));
        countdown.add(10_u64.wrapping_neg());
        assert_eq!(countdown.total(), 11 + (1 << 40), "it was taken back");
    }

    #[test]
    fn nothing_can_be_taken_from_one_that_is_closed() {
        let countdown = Countdown::<10>::closed();
        assert!([0, 1, 1 << 40].iter().all(|amount| !take(&countdown, *amount)));
        countdown.close();
        assert_eq!(countdown.total(), 0);
    }

    /// As `add` leaves it in a child after `fork`, where the thread is no more that was in the middle of it.
    #[test]
    fn what_is_left_half_done_is_understood() {
        for left in [3, 10] {
            let countdown = Countdown::<10> {
                left: AtomicIsize::new(left),
                granted: AtomicU64::new((100 + 10) << 1 | RENEWING),
            };
            assert_eq!(countdown.total(), 100);
        }
    }
}
