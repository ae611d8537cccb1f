//! Calls the functions of Linux that std does not offer.

#![allow(unsafe_code, reason = "calls into libc")]

use std::mem::MaybeUninit;
use std::time::Duration;

/// Returns the time since the machine booted, including the time in suspension.
///
/// The kernel records the start of a process by this clock.
pub(crate) fn since_boot() -> Option<Duration> {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `clock_gettime` needs a pointer that is valid for writing a `timespec`; `time` is one.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, time.as_mut_ptr()) } == 0;
    // SAFETY: on success `clock_gettime` has initialised the whole value.
    let time = done.then(|| unsafe { time.assume_init() })?;
    Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
}

/// Returns the clock ticks per second, the unit of time in `/proc/self/stat`.
pub(crate) fn ticks_per_second() -> Option<u64> {
    configured(libc::_SC_CLK_TCK)
}

/// Returns the bytes of a page, the unit of memory in `/proc/self/statm`.
pub(crate) fn page_size() -> Option<u64> {
    configured(libc::_SC_PAGESIZE)
}

/// Returns the number of CPUs that the main thread of the process, whose id is that of the process, may run on.
///
/// The calling thread may be pinned to fewer. Returns `None` if the machine has more CPUs than libc's set can hold.
pub(crate) fn affinity(process: u32) -> Option<u64> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    let main_thread = process.try_into().ok()?;
    // SAFETY: `sched_getaffinity` needs a pointer that is valid for writing the given number of bytes, which is `set`'s.
    let done = unsafe { libc::sched_getaffinity(main_thread, size_of_val(&set), set.as_mut_ptr()) } == 0;
    // SAFETY: `set` is made of integers. It was zeroed, so that it is initialised even if the kernel wrote only a part.
    let set = done.then(|| unsafe { set.assume_init() })?;
    // SAFETY: `CPU_COUNT` only reads the set, which is initialised.
    let count = unsafe { libc::CPU_COUNT(&set) };
    count.try_into().ok().filter(|count| *count > 0)
}

fn configured(name: libc::c_int) -> Option<u64> {
    // SAFETY: `sysconf` takes any number and returns -1 for an unknown one.
    let value = unsafe { libc::sysconf(name) };
    value.try_into().ok().filter(|value| *value > 0)
}
