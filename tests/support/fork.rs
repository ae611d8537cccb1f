//! Runs checks in a child after `fork`.

/// Forks and runs `checks` in the child, which ends without a return to the test. Fails if the child ends by a signal or if
/// a check fails.
#[track_caller]
pub fn child<const N: usize>(checks: impl FnOnce() -> [bool; N]) {
    // SAFETY: the child runs only `checks` and then ends at once.
    match unsafe { libc::fork() } {
        0 => {
            let failed = checks().iter().position(|good| !good);
            // SAFETY: it ends the child.
            unsafe { libc::_exit(failed.map_or(0, |index| index as i32 + 1)) }
        }
        child => {
            assert!(child > 0, "fork failed");
            let mut status = 0;
            // SAFETY: the status is writable.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert!(libc::WIFEXITED(status), "the child ended by a signal");
            assert_eq!(libc::WEXITSTATUS(status), 0, "the number of the failed check");
        }
    }
}
