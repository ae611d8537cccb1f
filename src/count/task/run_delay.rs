//! Reads how long a thread was runnable without a CPU.
//!
//! A poll that takes long because its thread waits for a CPU is not the task's fault. Linux keeps the sum of these waits
//! for each thread in `schedstat`. Reading the file before every poll would cost more than the poll, so each thread
//! reads it at most once in [`REFRESH`] ticks (3 ms at 2.8 GHz) before a poll, and once more after a slow poll. The
//! difference is the delay of that poll and of the `REFRESH` ticks before it: a slow poll is excused at most so much more
//! than it should be, and a poll that computes for the threshold and those ticks is never excused.
//!
//! Time that a hypervisor takes from the whole machine is not in the file and counts against the task.

use std::cell::Cell;
use std::time::Duration;

/// After how many ticks of the clock a value is too old.
const REFRESH: u64 = 1 << 23;

/// The delay of one thread when it was last read.
pub(crate) struct RunDelay {
    /// The moment of the reading, in ticks; 0 before the first time.
    read_at: Cell<u64>,
    delay: Cell<Option<Duration>>,
}

impl RunDelay {
    pub(crate) const fn new() -> Self {
        RunDelay { read_at: Cell::new(0), delay: Cell::new(None) }
    }

    #[inline]
    pub(crate) fn is_due(&self, now: u64) -> bool {
        now.wrapping_sub(self.read_at.get()) > REFRESH
    }

    /// Reads the delay so far.
    #[cold]
    #[inline(never)]
    pub(crate) fn refresh(&self, now: u64) {
        self.read_at.set(now);
        self.delay.set(read());
    }

    /// Returns the delay since it was last read; zero where the system does not report it.
    pub(crate) fn since_refresh(&self) -> Duration {
        let since = || Some(read()?.saturating_sub(self.delay.get()?));
        since().unwrap_or_default()
    }
}

/// Allocates nothing, since it runs in polls whose memory is counted.
#[cfg(target_os = "linux")]
fn read() -> Option<Duration> {
    use std::io::Read;

    let mut text = [0; 64];
    let length = std::fs::File::open("/proc/thread-self/schedstat").ok()?.read(&mut text).ok()?;
    parse(text.get(..length)?)
}

#[cfg(not(target_os = "linux"))]
fn read() -> Option<Duration> {
    None
}

/// Returns the second number: time on the CPU, time waiting for one, times on the CPU.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "no other system has the file"))]
fn parse(schedstat: &[u8]) -> Option<Duration> {
    let second = std::str::from_utf8(schedstat).ok()?.split_ascii_whitespace().nth(1)?;
    second.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_is_the_delay() {
        assert_eq!(parse(b"1200 340 5\n"), Some(Duration::from_nanos(340)));
        for text in ["", "1200", "1200 x 5"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn it_is_read_for_this_thread_and_grows() {
        let delay = RunDelay::new();
        assert!(delay.is_due(REFRESH + 1));
        delay.refresh(REFRESH + 1);
        assert!(!delay.is_due(REFRESH + 2));
        assert!(read() >= delay.delay.get());
        assert!(delay.delay.get().is_some(), "Linux reports it");
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::util::fuzz::{edited, run};

    #[test]
    fn any_schedstat_has_a_delay_or_none() {
        run(4_000, 1 << 18, |u| {
            let text = edited(u, &[b"120012003400 34012 5123\n", b"0 0 0\n", b"18446744073709551615 1 1\n"])?;
            let delay = parse(&text);
            if let Some(delay) = delay {
                let written = String::from_utf8(text).unwrap();
                let second = written.split_ascii_whitespace().nth(1).unwrap().trim_start_matches('+');
                assert_eq!(delay.as_nanos(), second.parse::<u128>().unwrap());
            }
            Ok(delay.is_some())
        });
    }
}
