//! Calls the functions of every Unix that std does not offer.

#![allow(unsafe_code, reason = "calls into libc")]

use std::mem::MaybeUninit;

/// Returns the resources used by all threads of the process since it started, ended threads included.
pub(crate) fn usage() -> Option<libc::rusage> {
    let mut usage = MaybeUninit::uninit();
    // SAFETY: `getrusage` needs a pointer that is valid for writing a `rusage`; `usage` is one.
    let done = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } == 0;
    // SAFETY: on success `getrusage` has initialised the whole value.
    done.then(|| unsafe { usage.assume_init() })
}

/// Returns the number of file descriptors that the process may open. `None` means unlimited.
pub(crate) fn file_descriptor_limit() -> Option<u64> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: `getrlimit` needs a pointer that is valid for writing a `rlimit`; `limit` is one.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()) } == 0;
    // SAFETY: on success `getrlimit` has initialised the whole value.
    let limit = done.then(|| unsafe { limit.assume_init() })?;
    #[allow(clippy::useless_conversion, reason = "the field has 32 bits or a sign on some systems")]
    let current = u64::try_from(limit.rlim_cur).ok()?;
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(current)
}
