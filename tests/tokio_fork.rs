//! A child after `fork` has the watched runtimes but not the watcher thread. One test function, since the whole process is
//! forked.

#![cfg(unix)]

use support::{fork, runtimes};

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
    fork::child(|| {
        // Ends the child if it waits for a lock of a thread that it does not have.
        unsafe { libc::alarm(20) };
        let checks = || [!reported("tokio.worker.stalls"), reported("tokio.task.count")];
        // The child never returns to the test: it cannot shut down a runtime without its threads.
        catch_unwind(AssertUnwindSafe(checks)).unwrap_or_default()
    });
    assert!(reported("tokio.worker.stalls"), "the parent goes on");
}
