//! A child after `fork` has the runtimes that were watched, but not the thread that watches. The whole process is forked,
//! hence one test function.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "fork, wait and exit, with arguments in plain sight"
)]

#[path = "support/runtimes.rs"]
mod runtimes;

use opentelemetry_instrumentation_runtime::RuntimeMetrics;
use runtimes::{build, looks, tokio_runtime, value};

#[test]
fn a_child_reports_no_stalls_rather_than_none() {
    let runtime = tokio_runtime();
    let metrics = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
    looks(&metrics, 1);
    let stalls = || value(&metrics, "tokio.worker.stalls");
    assert!(stalls().is_some());
    match unsafe { libc::fork() } {
        0 => {
            let told = [stalls().is_some(), value(&metrics, "tokio.worker.count").is_none()];
            let wrong = told.iter().position(|wrong| *wrong);
            unsafe { libc::_exit(wrong.map_or(0, |index| index as i32 + 1)) }
        }
        child => {
            assert!(child > 0, "fork failed");
            let mut status = 0;
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert!(libc::WIFEXITED(status), "the child ended by a signal");
            assert_eq!(libc::WEXITSTATUS(status), 0, "the number of what was wrong");
        }
    }
    assert!(stalls().is_some(), "the parent goes on");
}
