//! A clock for polls: two readings of `Instant` would cost more than all the rest of a measured poll.
//!
//! Where the kernel keeps its own time by the CPU's time-stamp counter, it has found that counter to be steady and
//! the same on all CPUs. It is read directly there, and its ticks are turned into time per collection instead of
//! per poll. Elsewhere a tick is a nanosecond of `Instant`.

#![allow(unsafe_code, reason = "the time-stamp counter is read by an intrinsic")]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use std::io::Read;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// Whether the time-stamp counter is known to be used: all that a reading has to look at.
static COUNTER: AtomicBool = AtomicBool::new(false);

/// Ticks since some moment in the past.
#[inline]
pub(crate) fn ticks() -> u64 {
    if COUNTER.load(Relaxed) { counter() } else { first_ticks() }
}

#[cold]
#[inline(never)]
fn first_ticks() -> u64 {
    let clock = Clock::get();
    if clock.counter { counter() } else { clock.instant.elapsed().as_nanos() as u64 }
}

/// How many nanoseconds so many ticks last. The longer the process has run, the more exact: to within 50 ns of
/// what has passed since the first call.
#[inline(never)]
pub(crate) fn nanos(ticks: u64) -> u64 {
    let clock = Clock::get();
    if !clock.counter {
        return ticks;
    }
    let passed = counter().saturating_sub(clock.ticks).max(1);
    let nanos = u128::from(ticks) * clock.instant.elapsed().as_nanos() / u128::from(passed);
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

struct Clock {
    /// Whether the time-stamp counter is used.
    counter: bool,
    /// The same moment by both.
    instant: Instant,
    ticks: u64,
}

impl Clock {
    fn get() -> &'static Clock {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        CLOCK.get_or_init(|| {
            let counter = kernel_trusts_the_counter();
            COUNTER.store(counter, Relaxed);
            Clock { counter, instant: Instant::now(), ticks: if counter { self::counter() } else { 0 } }
        })
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn kernel_trusts_the_counter() -> bool {
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    // Allocates nothing, since it may be in a poll whose memory is measured.
    let mut name = [0; 4];
    std::fs::File::open(source).and_then(|mut file| file.read_exact(&mut name)).is_ok() && name == *b"tsc\n"
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[inline]
fn counter() -> u64 {
    // SAFETY: the callee asks for a CPU that has the instruction, which every x86-64 has, and that user mode may
    // use it: the kernel takes that right away by `PR_SET_TSC` alone, under which its own `clock_gettime`, and
    // with it `Instant::now`, would fault as well.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn kernel_trusts_the_counter() -> bool {
    false
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn counter() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn it_goes_as_instant_does() {
        let (begin, start) = (Instant::now(), ticks());
        while begin.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let measured = nanos(ticks() - start) as f64;
        let passed = begin.elapsed().as_nanos() as f64;
        // `begin` is read first and `passed` last; between a pair of readings the thread may lose its CPU.
        assert!(measured >= 0.99 * 20e6, "{measured}");
        assert!(measured <= 1.01 * passed, "{measured} of {passed}");
    }

    #[test]
    fn it_does_not_go_back_from_one_cpu_to_the_next() {
        let mut last = ticks();
        for _ in 0..1000 {
            let next = std::thread::spawn(ticks).join().unwrap();
            assert!(next >= last, "{next} after {last}");
            last = next;
        }
    }
}
