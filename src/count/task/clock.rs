//! A clock for polls.
//!
//! It reads the CPU's counter where the kernel does: the kernel has then found that counter to be steady and the same on all
//! CPUs. That is the time-stamp counter of x86-64 and the virtual counter of aarch64. A collection turns its ticks into time,
//! not each poll. Elsewhere a tick is a nanosecond of `Instant`. `benches/task.rs` compares the two readings of each that a poll
//! takes: with `Instant` a named poll would exceed its limit, a tenth of what `tokio_metrics` adds to a poll. On aarch64 a poll
//! has some 220 instructions fewer.

#![allow(unsafe_code, reason = "the counter is read by an intrinsic or an instruction")]

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux"))]
use std::io::Read;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// True once the CPU's counter is known to be usable. A reading needs nothing else.
static COUNTER: AtomicBool = AtomicBool::new(false);

/// Returns the ticks since some moment in the past.
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

/// Returns how many nanoseconds so many ticks last. The rate is measured from the first call until now: the error of all
/// the ticks since then is at most 50 ns.
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
    /// True if the CPU's counter is used.
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

/// The name of the counter among the kernel's sources of time.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
const SOURCE: &[u8; 4] = b"tsc\n";
#[cfg(all(target_arch = "aarch64", target_os = "linux"))]
const SOURCE: &[u8; 17] = b"arch_sys_counter\n";

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux"))]
fn kernel_trusts_the_counter() -> bool {
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    // It allocates nothing, since it may run in a poll whose memory is counted.
    let mut name = [0; SOURCE.len()];
    std::fs::File::open(source).and_then(|mut file| file.read_exact(&mut name)).is_ok() && name == *SOURCE
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[inline]
fn counter() -> u64 {
    // SAFETY: the CPU must have the instruction: every x86-64 CPU has. User mode must be allowed to use it: the kernel
    // forbids it under `PR_SET_TSC` alone, where `clock_gettime`, and with it `Instant::now`, would fault as well.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(all(target_arch = "aarch64", target_os = "linux"))]
#[inline]
fn counter() -> u64 {
    let ticks;
    // SAFETY: user mode must be allowed to read the register: Linux allows it, or, on a CPU whose counter has a fault, reads it
    // for the program and corrects it. The kernel forbids it under `PR_SET_TSC` alone, where `Instant::now` would fault as well.
    // The barrier keeps the CPU from reading the register before earlier instructions, as the kernel's own reading does:
    // otherwise the counter could go back between threads. Neither instruction touches memory or flags.
    unsafe {
        std::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags))
    };
    ticks
}

#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux")))]
fn kernel_trusts_the_counter() -> bool {
    false
}

#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux")))]
fn counter() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn it_keeps_pace_with_instant() {
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

    /// Under an emulator the kernel's source is another machine's, so that the clock is `Instant`.
    #[cfg(all(target_arch = "aarch64", target_os = "linux"))]
    #[test]
    fn the_register_keeps_pace_with_instant_and_does_not_go_back() {
        let hertz: u64;
        // SAFETY: user mode may read the register.
        unsafe { std::arch::asm!("mrs {}, cntfrq_el0", out(reg) hertz) };
        assert!(hertz > 0);
        let (begin, start) = (Instant::now(), counter());
        let mut last = start;
        while begin.elapsed() < Duration::from_millis(20) {
            let next = std::thread::scope(|scope| scope.spawn(counter).join().unwrap());
            assert!(next >= last, "{next} after {last}");
            last = next;
        }
        let measured = (counter() - start) as f64 / hertz as f64;
        let passed = begin.elapsed().as_secs_f64();
        assert!(measured >= 0.99 * 0.02 && measured <= 1.01 * passed, "{measured} of {passed}");
    }

    #[test]
    fn it_does_not_go_back_between_threads() {
        let mut last = ticks();
        for _ in 0..1000 {
            let next = std::thread::spawn(ticks).join().unwrap();
            assert!(next >= last, "{next} after {last}");
            last = next;
        }
    }
}
