//! Starts a thread that owns a current-thread Tokio runtime.

use std::io;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use tokio::runtime::{self, Runtime};

/// Starts a thread with a current-thread runtime and runs `run` on it.
///
/// The runtime is built on the new thread and never leaves it. If the caller built it and the thread failed to start,
/// the caller would drop the runtime, which panics inside another runtime.
///
/// # Errors
/// Returns the error of the thread or of the runtime that could not be started.
pub(crate) fn spawn(
    thread: thread::Builder,
    run: impl FnOnce(Runtime) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (sender, started) = sync_channel(1);
    let thread = thread.spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, result) = match runtime {
            Ok(runtime) => (Some(runtime), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // The caller waits for the result.
        let _ = sender.send(result);
        if let Some(runtime) = runtime {
            run(runtime);
        }
    })?;
    started.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
    Ok(thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside<T>(test: impl FnOnce() -> T) -> T {
        runtime::Builder::new_current_thread().build().unwrap().block_on(async { test() })
    }

    #[test]
    fn a_thread_that_cannot_start_is_an_error_even_inside_a_runtime() {
        let impossible = thread::Builder::new().stack_size(usize::MAX >> 1);
        assert!(inside(|| spawn(impossible, |_| {})).is_err());
    }

    #[test]
    fn the_function_runs_on_the_runtime() {
        let (sender, results) = sync_channel(1);
        let run = move |runtime: Runtime| sender.send(runtime.block_on(async { 7 })).unwrap();
        inside(|| spawn(thread::Builder::new(), run)).unwrap().join().unwrap();
        assert_eq!(results.recv(), Ok(7));
    }
}
