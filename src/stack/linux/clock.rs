//! Clocks of CPU time.

#![allow(unsafe_code, reason = "system calls")]

use std::hash::{BuildHasher, RandomState};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use crate::stack::reason::Reason;

/// A clock that counts the CPU time of a thread or of the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(libc::clockid_t);

impl Clock {
    pub(super) fn of_process() -> Self {
        Clock(libc::CLOCK_PROCESS_CPUTIME_ID)
    }

    pub(super) fn of_this_thread() -> Self {
        Clock(libc::CLOCK_THREAD_CPUTIME_ID)
    }

    pub(super) fn of_thread(thread: u32) -> Self {
        // The kernel's way to write the clock of any thread of this process.
        const OF_A_THREAD: libc::clockid_t = 4;
        const BY_THE_SCHEDULER: libc::clockid_t = 2;
        Clock((!thread.cast_signed() << 3) | OF_A_THREAD | BY_THE_SCHEDULER)
    }

    pub(super) fn id(self) -> libc::clockid_t {
        self.0
    }

    /// Returns the time used so far. `None` if the thread has ended.
    pub(super) fn now(self) -> Option<Duration> {
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the kernel writes a `timespec` to the pointer.
        let is_done = unsafe { libc::clock_gettime(self.0, time.as_mut_ptr()) } == 0;
        // SAFETY: on success it has written all of it.
        let time = is_done.then(|| unsafe { time.assume_init() })?;
        Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
    }
}

/// What a clock has counted since a moment.
#[derive(Debug)]
pub(super) struct Used {
    clock: Clock,
    before: Duration,
    last: Duration,
    /// The moment at which the clock was read last.
    read: Instant,
}

impl Used {
    pub(super) fn since_now(clock: Clock) -> Self {
        let before = clock.now().unwrap_or_default();
        Used { clock, before, last: Duration::ZERO, read: Instant::now() }
    }

    /// Counts from the clock's beginning.
    pub(super) fn in_all(clock: Clock) -> Self {
        let last = clock.now().unwrap_or_default();
        Used { clock, before: Duration::ZERO, last, read: Instant::now() }
    }

    /// Reads the clock. If the thread has ended, the time is as before.
    pub(super) fn now(&mut self) -> Duration {
        if let Some(now) = self.clock.now() {
            self.saw(now);
            self.read = Instant::now();
        }
        self.last
    }

    /// Takes in what the clock has shown at some moment since the last reading, and returns the time at that moment.
    pub(super) fn saw(&mut self, clock: Duration) -> Duration {
        let time = clock.saturating_sub(self.before);
        self.last = self.last.max(time);
        time
    }

    /// Returns the most time that is known.
    pub(super) fn last(&self) -> Duration {
        self.last
    }

    /// Returns how much real time has passed since the last reading.
    pub(super) fn age(&self) -> Duration {
        self.read.elapsed()
    }

    /// Adds time that the clock has counted since it was read, as is known from elsewhere.
    pub(super) fn add(&mut self, time: Duration) {
        self.last += time;
    }
}

pub(super) fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or_default(),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Returns a random duration that is above zero and at most the given one.
pub(super) fn random_part_of(period: Duration) -> Duration {
    let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
    // Each state has its own keys.
    Duration::from_nanos(RandomState::new().hash_one(0) % nanos + 1)
}

/// Turns the result of a call about a thread into an error.
pub(super) fn check(result: libc::c_long, call: &'static str) -> Result<(), Reason> {
    if result == 0 {
        return Ok(());
    }
    match std::io::Error::last_os_error().raw_os_error() {
        // The clock of a thread that has ended is not valid.
        Some(libc::EINVAL | libc::ESRCH) => Err(Reason::Ended),
        errno => Err(Reason::Refused { call, errno: errno.unwrap_or_default() }),
    }
}
