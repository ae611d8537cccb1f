//! A child after `fork` has the watched runtimes but not the watcher thread. One test function, since the whole process is
//! forked.

#![cfg(unix)]

use support::runtimes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use opentelemetry_instrumentation_runtime::RuntimeMetrics;
use runtimes::{build, looks, tokio_runtime, values};

#[test]
fn a_child_does_not_report_stalls() {
    let runtime = tokio_runtime();
    let seldom = RuntimeMetrics::builder().probe_interval(Duration::from_millis(500));
    let metrics = build(seldom.runtime("", runtime.handle()));
    looks(&metrics, 1);
    let reported = |name| !values(&metrics, name).is_empty();
    // The snapshot waits for the locks of a tick, so that the fork finds none held.
    assert!(reported("tokio.worker.stalls"));
    match unsafe { libc::fork() } {
        0 => {
            let as_it_should_be = || !reported("tokio.worker.stalls") && reported("tokio.task.count");
            // Ends the child if it waits for a lock of a thread that it does not have.
            unsafe { libc::alarm(20) };
            // The child never returns to the test: it cannot shut down a runtime without its threads.
            let good = catch_unwind(AssertUnwindSafe(as_it_should_be)).unwrap_or(false);
            unsafe { libc::_exit(i32::from(!good)) }
        }
        child => {
            assert!(child > 0, "fork failed");
            let mut status = 0;
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert!(libc::WIFEXITED(status), "the child ended by a signal");
            assert_eq!(libc::WEXITSTATUS(status), 0, "the child reports the wrong metrics");
        }
    }
    assert!(reported("tokio.worker.stalls"), "the parent goes on");
}
