//! A thread with a Tokio runtime of its own, which it is alone in.

use std::io;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use tokio::runtime::{self, Runtime};

/// Starts one. The runtime is made on the thread and never leaves it: where there is no thread to be had, it would be
/// dropped by whoever asked for one, which panics inside a runtime of the application's.
pub(crate) fn spawn(
    thread: thread::Builder,
    run: impl FnOnce(Runtime) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (tell, told) = sync_channel(1);
    let thread = thread.spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, result) = match runtime {
            Ok(runtime) => (Some(runtime), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // Whoever asked is waiting for it.
        let _ = tell.send(result);
        if let Some(runtime) = runtime {
            run(runtime);
        }
    })?;
    told.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
    Ok(thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside<T>(test: impl FnOnce() -> T) -> T {
        runtime::Builder::new_current_thread().build().unwrap().block_on(async { test() })
    }

    #[test]
    fn without_a_thread_there_is_an_error_even_inside_a_runtime() {
        let impossible = thread::Builder::new().stack_size(usize::MAX >> 1);
        assert!(inside(|| spawn(impossible, |_| {})).is_err());
    }

    #[test]
    fn it_runs_what_it_is_given() {
        let (tell, told) = sync_channel(1);
        let run = move |runtime: Runtime| tell.send(runtime.block_on(async { 7 })).unwrap();
        inside(|| spawn(thread::Builder::new(), run)).unwrap().join().unwrap();
        assert_eq!(told.recv(), Ok(7));
    }
}
