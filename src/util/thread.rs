//! Starts the threads of the library: with signals blocked and, where one is wanted, with a Tokio runtime.

#![cfg_attr(unix, allow(unsafe_code, reason = "the signal mask of a thread has no safe interface"))]

use std::io;
use std::thread::{self, JoinHandle};

#[cfg(any(feature = "_otlp", feature = "debug"))]
use tokio::runtime::{self, Runtime};

/// Starts a thread that takes no signals. A program that blocks a signal in `main` and waits for it with `sigwait` or
/// a `signalfd` then gets it, even if this library started threads before.
pub(crate) fn spawn(
    thread: thread::Builder,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    // A new thread inherits the mask of the one that starts it.
    #[cfg(unix)]
    let _blocked = BlockedSignals::new();
    thread.spawn(run)
}

/// Starts such a thread with a Tokio runtime, which it is alone in.
///
/// The runtime is made on the thread and never leaves it. If the caller made it and then got no thread, the caller
/// would have to drop it, which panics inside a runtime of the application.
#[cfg(any(feature = "_otlp", feature = "debug"))]
pub(crate) fn spawn_with_runtime(
    thread: thread::Builder,
    run: impl FnOnce(Runtime) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (report, started) = std::sync::mpsc::sync_channel(1);
    let thread = spawn(thread, move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, result) = match runtime {
            Ok(runtime) => (Some(runtime), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // The caller waits for it.
        let _ = report.send(result);
        if let Some(runtime) = runtime {
            run(runtime);
        }
    })?;
    started.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
    Ok(thread)
}

/// Blocks signals on this thread until it is dropped.
#[cfg(unix)]
struct BlockedSignals {
    before: libc::sigset_t,
}

/// The kernel raises these on the thread that commits the fault. While they are blocked, a crash handler of the
/// application would not see it.
#[cfg(unix)]
const FAULTS: [libc::c_int; 4] = [libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGSEGV];

#[cfg(unix)]
impl BlockedSignals {
    fn new() -> Option<Self> {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the pointer is valid for writes, and a call that succeeds initialises the set.
        if unsafe { libc::sigfillset(all.as_mut_ptr()) } != 0 {
            return None;
        }
        for fault in FAULTS {
            // SAFETY: the set was initialised above, and the numbers are signals of this system.
            unsafe { libc::sigdelset(all.as_mut_ptr(), fault) };
        }
        // SAFETY: the first set is initialised, and the second pointer is valid for writes.
        let result = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        // SAFETY: a call that returned 0 has initialised the set.
        (result == 0).then(|| BlockedSignals { before: unsafe { before.assume_init() } })
    }
}

#[cfg(unix)]
impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set is initialised, and a null pointer asks for no answer.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[cfg(any(feature = "_otlp", feature = "debug"))]
    fn inside<T>(test: impl FnOnce() -> T) -> T {
        runtime::Builder::new_current_thread().build().unwrap().block_on(async { test() })
    }

    #[test]
    #[cfg(any(feature = "_otlp", feature = "debug"))]
    fn without_a_thread_there_is_an_error_even_inside_a_runtime() {
        let impossible = thread::Builder::new().stack_size(usize::MAX >> 1);
        assert!(inside(|| spawn_with_runtime(impossible, |_| {})).is_err());
    }

    #[test]
    #[cfg(any(feature = "_otlp", feature = "debug"))]
    fn the_thread_runs_the_function() {
        let (send, received) = sync_channel(1);
        let run = move |runtime: Runtime| send.send(runtime.block_on(async { 7 })).unwrap();
        inside(|| spawn_with_runtime(thread::Builder::new(), run)).unwrap().join().unwrap();
        assert_eq!(received.recv(), Ok(7));
    }

    /// The signals that this thread blocks, a bit each.
    #[cfg(target_os = "linux")]
    fn blocked() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_thread_blocks_every_signal_but_faults_and_its_parent_none() {
        let before = blocked();
        let (send, received) = sync_channel(1);
        spawn(thread::Builder::new(), move || send.send(blocked()).unwrap()).unwrap().join().unwrap();
        let blocked_there = received.recv().unwrap();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGCHLD, libc::SIGPROF]
        {
            assert_ne!(blocked_there & 1 << (signal - 1), 0, "signal {signal} in {blocked_there:x}");
        }
        for fault in FAULTS {
            assert_eq!(blocked_there & 1 << (fault - 1), 0, "signal {fault} in {blocked_there:x}");
        }
        assert_eq!(blocked(), before);
    }
}
