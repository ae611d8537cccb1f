//! The system calls that the machine's sources make and std has no words for.

#![allow(unsafe_code, reason = "calls into libc")]

use std::mem::MaybeUninit;
use std::time::Duration;

/// What all threads of the process together have used since it started, those that ended included.
pub(in crate::source) fn usage() -> Option<libc::rusage> {
    let mut usage = MaybeUninit::uninit();
    // SAFETY: `getrusage` asks for a pointer that a `rusage` can be written to.
    let done = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } == 0;
    // SAFETY: on success it has written all of it.
    done.then(|| unsafe { usage.assume_init() })
}

/// The time since the machine was booted, including the time that it was suspended: the clock that the kernel
/// writes a process's start with.
pub(in crate::source) fn since_boot() -> Option<Duration> {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `clock_gettime` asks for a pointer that a `timespec` can be written to.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, time.as_mut_ptr()) } == 0;
    // SAFETY: on success it has written all of it.
    let time = done.then(|| unsafe { time.assume_init() })?;
    Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
}

/// The unit of time in `/proc/self/stat`, as parts of a second.
pub(in crate::source) fn ticks_per_second() -> Option<u64> {
    configured(libc::_SC_CLK_TCK)
}

/// The unit of memory in `/proc/self/statm`.
pub(in crate::source) fn page_size() -> Option<u64> {
    configured(libc::_SC_PAGESIZE)
}

/// The number of descriptors that the process may have open, unless it is unlimited.
pub(in crate::source) fn file_descriptor_limit() -> Option<u64> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: `getrlimit` asks for a pointer that a `rlimit` can be written to.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()) } == 0;
    // SAFETY: on success it has written all of it.
    let limit = done.then(|| unsafe { limit.assume_init() })?;
    #[allow(clippy::useless_conversion, reason = "it has 32 bits on some systems")]
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur.into())
}

/// The number of CPUs that the main thread may run on. Not the calling thread, which may be pinned to one of them.
/// `None` where there are more than libc's set has room for.
pub(in crate::source) fn affinity() -> Option<u64> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    let main_thread = std::process::id().try_into().ok()?;
    // SAFETY: `sched_getaffinity` asks for a pointer that as many bytes can be written to as it is told.
    let done = unsafe { libc::sched_getaffinity(main_thread, size_of_val(&set), set.as_mut_ptr()) } == 0;
    // SAFETY: a bit set of integers, which zeros were written to and then whatever the kernel has written.
    let set = done.then(|| unsafe { set.assume_init() })?;
    // SAFETY: `CPU_COUNT` reads the set and nothing else.
    let count = unsafe { libc::CPU_COUNT(&set) };
    count.try_into().ok().filter(|count| *count > 0)
}

fn configured(name: libc::c_int) -> Option<u64> {
    // SAFETY: `sysconf` takes any number, and answers those that it does not know with -1.
    let value = unsafe { libc::sysconf(name) };
    value.try_into().ok().filter(|value| *value > 0)
}
