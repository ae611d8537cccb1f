//! A counter that reports by itself when its owner has to look at it.

use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::atomic::{AtomicIsize, AtomicU64, constructor, fence};
use super::peak::STEP;

/// Counts a total by counting down what may still be added until the owner has to look at the total.
///
/// The hot path changes one number, and its sign says whether that time has come. Only the owner writes, except to the
/// slot that no thread owns; any thread may read.
#[repr(C)]
pub(super) struct Countdown {
    /// The amount that may still be added. Negative, which means zero, from a [`take`] that failed until the [`drain`](Self::drain)
    /// that has to follow.
    left: AtomicIsize,
    /// Twice the total when nothing is left. With the bit `RENEWING`, twice the total now, regardless of the rest.
    granted: AtomicU64,
}

const RENEWING: u64 = 1;

/// The rest of a countdown that refuses everything: far enough from zero that threads which overwrite each other's
/// subtractions do not get there.
const NEVER: isize = isize::MIN / 2;

impl Countdown {
    constructor! { fn new() -> Self {
        Countdown { left: AtomicIsize::new(0), granted: AtomicU64::new(0) }
    } }

    // A countdown that refuses everything.
    constructor! { fn closed() -> Self {
        Countdown { left: AtomicIsize::new(NEVER), granted: AtomicU64::new(0) }
    } }

    /// Undoes what failed calls of [`take`] subtracted from a closed countdown.
    pub(super) fn close(&self) {
        self.left.store(NEVER, Relaxed);
    }

    /// Returns true if the last [`take`] failed.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.left.load(Relaxed) < 0
    }

    /// Adds what was left before a [`take`] of `amount` failed, as the first part of that amount, and returns it.
    pub(super) fn drain(&self, amount: usize) -> u64 {
        let left = self.left.load(Relaxed).wrapping_add(signed(amount));
        self.left.store(0, Release);
        left as u64
    }

    /// Adds an amount of any size, or subtracts it if it is negative in two's complement. `grant` gets the new total and
    /// returns how much may be taken from now on.
    pub(super) fn add(&self, amount: u64, grant: impl FnOnce(u64) -> usize) {
        let total = self.own_total().wrapping_add(amount);
        let grant = grant(total);
        self.granted.store(total << 1 | RENEWING, Release);
        // A reader that sees what is left from here on also sees that it was renewed.
        fence(Release);
        self.left.store(grant as isize, Relaxed);
        self.granted.store(total.wrapping_add(grant as u64) << 1, Release);
    }

    /// Returns the total as the owner sees it. Wrong while the countdown is overdrawn.
    #[inline]
    pub(super) fn own_total(&self) -> u64 {
        (self.granted.load(Relaxed) >> 1).wrapping_sub(self.left.load(Relaxed) as u64)
    }

    /// Adds an amount to a countdown that no thread owns.
    pub(super) fn add_shared(&self, amount: u64) {
        self.granted.fetch_add(amount << 1, Release);
    }

    /// Returns the total, from any thread.
    ///
    /// It reads again only if the owner has renewed the countdown meanwhile, so that a renewal which never ends, because a
    /// child after `fork` does not have the owner's thread, keeps no reader waiting.
    pub(super) fn total(&self) -> u64 {
        loop {
            let granted = self.granted.load(Acquire);
            // More than is ever granted is left where a request of 2^62 bytes or more is about to fail.
            let left = Some(self.left.load(Acquire)).filter(|left| (0..=STEP as isize).contains(left));
            let left = left.unwrap_or(0) as u64;
            if self.granted.load(Relaxed) == granted {
                let left = if granted & RENEWING == 0 { left } else { 0 };
                return (granted >> 1).wrapping_sub(left);
            }
        }
    }
}

/// Adds an amount to the countdown that lies `AT` bytes into `holder` and returns true, if so much is left. Otherwise it
/// returns false, and [`Countdown::drain`] has to follow. Stores with `Release`.
///
/// In assembly because the compiler does not test the result of an atomic subtraction in memory: it makes four
/// instructions of the version below, which means the same, and this is two. That saves 4 of 19 to 24 instructions for an
/// allocation and its deallocation and keeps the limits that `benches/allocator.rs` checks; `--cfg plain_countdown` builds
/// the other version for comparison.
///
/// # Safety
/// * A `Countdown` lies `AT` bytes into `holder`.
#[inline(always)]
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", not(any(model, miri, plain_countdown))))]
pub(super) unsafe fn take<T, const AT: usize>(holder: &T, amount: usize) -> bool {
    // SAFETY:
    // * The address is that of `left`, the first field of the countdown that the caller has put there.
    // * A load and a store of an aligned word are atomic, and on x86-64 a store releases.
    // * The assembly does not touch the stack.
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

/// Adds an amount to the countdown that lies `AT` bytes into `holder` and returns true, if so much is left. Otherwise it
/// returns false, and [`Countdown::drain`] has to follow. Stores with `Release`.
///
/// # Safety
/// * A `Countdown` lies `AT` bytes into `holder`.
#[inline(always)]
#[cfg(not(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(any(model, miri, plain_countdown))
)))]
pub(super) unsafe fn take<T, const AT: usize>(holder: &T, amount: usize) -> bool {
    // SAFETY:
    // * The caller has put a countdown there, and it lives as long as `holder`.
    let left = unsafe { &(*(&raw const *holder).byte_add(AT).cast::<Countdown>()).left };
    let (before, amount) = (left.load(Relaxed), signed(amount));
    // With 32-bit addresses, `NEVER` less an amount may be below the smallest number.
    let narrow = size_of::<usize>() < size_of::<u64>();
    let now = if narrow { before.saturating_sub(amount) } else { before.wrapping_sub(amount) };
    left.store(now, Release);
    now >= 0
}

/// Returns an amount to subtract. With 32-bit addresses, twice a size may exceed an `isize`, and is then far more than is
/// ever left.
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

    /// More than is ever left, with addresses of 32 bits too.
    const LARGE: usize = 1 << 30;

    fn take(countdown: &Countdown, amount: usize) -> bool {
        // SAFETY:
        // * A countdown lies at its own beginning.
        unsafe { super::take::<_, 0>(countdown, amount) }
    }

    #[test]
    fn takes_what_is_left_and_nothing_more() {
        let countdown = Countdown::new();
        assert!(!take(&countdown, 1), "nothing was granted");
        assert_eq!(countdown.drain(1), 0);
        countdown.add(1, |_| 10);
        assert_eq!(countdown.total(), 1);
        assert!(take(&countdown, 4) && take(&countdown, 6));
        assert_eq!(countdown.total(), 11);
        assert!(!take(&countdown, LARGE));
        assert!(countdown.is_overdrawn());
        assert_eq!(countdown.total(), 11, "not yet");
        assert_eq!(countdown.drain(LARGE), 0);
        countdown.add(LARGE as u64, |_| 10);
        assert_eq!(countdown.total(), 11 + LARGE as u64);
        assert!(!take(&countdown, 11));
        assert_eq!((countdown.drain(11), countdown.total()), (10, 21 + LARGE as u64));
        countdown.add(10_u64.wrapping_neg(), |_| 10);
        assert_eq!(countdown.total(), 11 + LARGE as u64, "taken back");
    }

    #[test]
    fn grants_the_requested_amount() {
        let countdown = Countdown::new();
        for grant in [0, 3, 1000] {
            countdown.add(0, |_| grant);
            let before = countdown.total();
            assert!(take(&countdown, grant) && !take(&countdown, 1));
            assert_eq!(countdown.drain(1), 0);
            assert_eq!(countdown.total(), before + grant as u64);
        }
    }

    #[test]
    fn refuses_everything_when_closed() {
        let countdown = Countdown::closed();
        assert!([0, 1, LARGE].iter().all(|amount| !take(&countdown, *amount)));
        countdown.close();
        assert_eq!(countdown.total(), 0);
    }

    /// A child after `fork` does not have the thread that was in the middle of [`Countdown::add`].
    #[test]
    fn a_renewal_that_never_ends_is_understood() {
        for left in [3, 10] {
            let countdown =
                Countdown { left: AtomicIsize::new(left), granted: AtomicU64::new(100 << 1 | RENEWING) };
            assert_eq!(countdown.total(), 100);
        }
    }
}
