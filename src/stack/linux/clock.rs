//! Clocks of CPU time.

#![allow(unsafe_code, reason = "system calls")]

use std::hash::{BuildHasher, RandomState};
use std::mem::MaybeUninit;
use std::time::Duration;

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
