//! Memory for samples, and the name of the calling thread: what the operating system is asked for.

use std::sync::atomic::AtomicU64;

/// Maps memory that is never unmapped. `None` if the system has none. Pages take memory once they are written.
#[cfg(target_os = "linux")]
pub(super) fn map(bytes: usize) -> Option<&'static [AtomicU64]> {
    let words = bytes / size_of::<AtomicU64>();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY:
    // * Without an address and a file, a mapping disturbs nothing.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED || words == 0 {
        return None;
    }
    // SAFETY:
    // * The mapping is at least so long, aligned to a page, and is never unmapped.
    // * It consists of zeros, which are valid words.
    // * No other code has its address.
    Some(unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>(), words) })
}

/// Other systems have no heap profile.
#[cfg(not(target_os = "linux"))]
pub(super) fn map(_: usize) -> Option<&'static [AtomicU64]> {
    None
}

/// Returns the calling thread's name, of up to 15 bytes. 0 if it has none.
#[cfg(target_os = "linux")]
pub(super) fn thread_name() -> u128 {
    let mut name = [0_u8; 16];
    // SAFETY:
    // * The kernel writes at most 16 bytes to the array.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    u128::from_ne_bytes(name)
}

/// Stacks are taken on Linux only, and names with them.
#[cfg(not(target_os = "linux"))]
pub(super) fn thread_name() -> u128 {
    0
}
