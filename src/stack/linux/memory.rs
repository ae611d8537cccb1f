//! Reads memory that may not be there.

#![allow(unsafe_code, reason = "system calls")]

use std::ptr;

/// The unit in which memory is mapped, or a part of that unit.
pub(super) const PAGE: usize = 4096;

/// The most that is copied of a stack.
pub(super) const MAX_COPY: usize = 64 << 10;

/// Copies memory of this process, up to the first page that cannot be read. Returns the number of bytes copied, or the error's
/// number. Safe to call in a signal handler, except that it may change `errno`.
pub(super) fn copy(address: usize, into: &mut [u8]) -> Result<usize, i32> {
    const PARTS: usize = MAX_COPY / PAGE + 1;
    let mut parts = [const { libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 } }; PARTS];
    let (mut next, mut left, mut count) = (address, into.len(), 0);
    // The kernel copies whole parts only, hence a part for each page.
    for part in &mut parts {
        let length = (PAGE - next % PAGE).min(left);
        if length == 0 {
            break;
        }
        *part = libc::iovec { iov_base: ptr::without_provenance_mut(next), iov_len: length };
        next = next.saturating_add(length);
        left -= length;
        count += 1;
    }
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: the kernel checks the remote addresses, and the local one is a slice that may be written to.
    let copied =
        unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, parts.as_ptr(), count, 0) };
    match usize::try_from(copied) {
        Ok(copied) => Ok(copied.min(into.len())),
        Err(_) => match errno() {
            libc::EFAULT => Ok(0),
            errno => Err(errno),
        },
    }
}

/// Returns true if the eight bytes at an aligned address can be read. Changes `errno`.
#[inline]
pub(super) fn is_readable(address: usize) -> bool {
    // The kernel reads the set first and refuses the unknown operation afterwards, so that nothing changes. It is the
    // cheapest call that can be made anywhere, and no seccomp profile forbids it.
    const NO_OPERATION: libc::c_long = -1;
    const SET_SIZE: libc::c_long = 8;
    // SAFETY: the kernel checks the address.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            NO_OPERATION,
            address,
            ptr::null_mut::<libc::sigset_t>(),
            SET_SIZE,
        )
    };
    result == -1 && errno() == libc::EINVAL
}

fn errno() -> i32 {
    // SAFETY: libc returns the address of the calling thread's own number.
    unsafe { *libc::__errno_location() }
}

/// Restores `errno` when dropped, since what is called between a failed call of the program's and its look at the error
/// must not change it.
pub(super) struct KeepErrno(i32);

impl KeepErrno {
    pub(super) fn new() -> Self {
        KeepErrno(errno())
    }
}

impl Drop for KeepErrno {
    fn drop(&mut self) {
        // SAFETY: libc returns the address of the calling thread's own number.
        unsafe { *libc::__errno_location() = self.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pages of which the second cannot be read.
    fn page_before_a_hole() -> usize {
        // SAFETY: anonymous memory anywhere, of which a part is taken away again.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start =
                libc::mmap(ptr::null_mut(), 2 * PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            start.cast::<u8>().write_bytes(7, PAGE);
            assert_eq!(libc::mprotect(start.byte_add(PAGE), PAGE, libc::PROT_NONE), 0);
            start.addr()
        }
    }

    #[test]
    fn a_copy_ends_where_memory_does() {
        let page = page_before_a_hole();
        let mut bytes = vec![0; 2 * PAGE];
        assert_eq!(copy(page, &mut bytes), Ok(PAGE));
        assert!(bytes[..PAGE].iter().all(|byte| *byte == 7));
        assert_eq!(copy(page + PAGE, &mut bytes), Ok(0));
        assert_eq!(copy(page + PAGE - 8, &mut bytes), Ok(8));
    }

    #[test]
    fn memory_that_is_not_there_is_recognised() {
        let page = page_before_a_hole();
        assert!(is_readable(page) && is_readable(page + PAGE - 8));
        assert!(!is_readable(page + PAGE) && !is_readable(0));
    }
}
