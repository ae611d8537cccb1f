//! A child after `fork` has the runtimes that were watched, but not the thread that watches. The whole process is forked,
//! hence one test function.

#![cfg(unix)]

use support::runtimes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use opentelemetry_instrumentation_runtime::RuntimeMetrics;
use runtimes::{build, looks, tokio_runtime, values};

#[test]
fn a_child_reports_no_stalls_rather_than_none() {
    let runtime = tokio_runtime();
    let seldom = RuntimeMetrics::builder().probe_interval(Duration::from_millis(500));
    let metrics = build(seldom.runtime("", runtime.handle()));
    looks(&metrics, 1);
    let told = |name| !values(&metrics, name).is_empty();
    // Which waits for the locks of a look under way, so that none is held when the child begins.
    assert!(told("tokio.worker.stalls"));
    match unsafe { libc::fork() } {
        0 => {
            let as_it_should_be = || !told("tokio.worker.stalls") && told("tokio.task.count");
            // Rather than wait for what a thread held that the child does not have.
            unsafe { libc::alarm(20) };
            // Never back to the test: the child cannot shut the runtime down, whose threads it does not have.
            let good = catch_unwind(AssertUnwindSafe(as_it_should_be)).unwrap_or(false);
            unsafe { libc::_exit(i32::from(!good)) }
        }
        child => {
            assert!(child > 0, "fork failed");
            let mut status = 0;
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert!(libc::WIFEXITED(status), "the child ended by a signal");
            assert_eq!(libc::WEXITSTATUS(status), 0, "what the child was told");
        }
    }
    assert!(told("tokio.worker.stalls"), "the parent goes on");
}
