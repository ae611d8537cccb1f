//! A monitor logs a full disk once and disturbs nothing else. Alone in its process, since it reads the log.

#![cfg(target_os = "linux")]

use support::log;

use std::time::Duration;

use opentelemetry_instrumentation_runtime::{Monitor, RuntimeMetrics};

#[test]
fn a_full_disk_ends_the_lines_with_one_warning() {
    log::listen();
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
    log::take();

    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let _monitor = Monitor::start(&metrics, Duration::from_millis(5), full);
    let mut warnings = Vec::new();
    while warnings.is_empty() {
        warnings = log::take();
        std::thread::yield_now();
    }
    // Twenty intervals more.
    std::thread::sleep(Duration::from_millis(100));
    warnings.extend(log::take());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("WARN") && warnings[0].contains("monitor"), "{warnings:?}");
    assert!(metrics.snapshot().get("process.uptime").is_some());
}
