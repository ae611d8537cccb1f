//! A meter that never exports is noticed, and `Debug` says so. Alone in its process, whose environment and log it uses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Command;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{RuntimeMetrics, init_runtime_metrics};
use support::log;
use support::reader::{Reader, provider};

fn problem(metrics: &RuntimeMetrics) -> Option<bool> {
    format!("{metrics:?}").split_once("\"export\": ").map(|(_, rest)| rest.contains("two export intervals"))
}

fn warnings() -> usize {
    log::take().iter().filter(|line| line.contains("not exported")).count()
}

#[test]
fn a_meter_without_a_reader_is_noticed() {
    const TEST: &str = "a_meter_without_a_reader_is_noticed";
    if std::env::var_os("ALONE").is_none() {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", TEST]).env("ALONE", "1").env("OTEL_METRIC_EXPORT_INTERVAL", "100");
        let test = test.output().unwrap();
        assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stdout));
        return;
    }
    log::listen();
    let no_op = init_runtime_metrics(&opentelemetry::global::meter("test"));
    assert_eq!(problem(&no_op), Some(false), "at once: {no_op:?}");
    assert_eq!(warnings(), 1);
    no_op.snapshot();
    assert_eq!(warnings(), 0, "once");

    let reader = Reader::cumulative();
    let provider = provider(&[&reader]);
    // On a runtime, so that the watcher thread notices it.
    let runtime = support::runtimes::tokio_runtime();
    let _inside = runtime.enter();
    let dead = init_runtime_metrics(&provider.meter("test"));
    let mut seen = 0;
    support::runtimes::until("the reader is missed", || {
        seen += warnings();
        (seen > 0).then_some(())
    });
    assert_eq!(problem(&dead), Some(true), "{dead:?}");
    reader.export();
    assert_eq!(problem(&dead), None, "the warning has come: {dead:?}");
}
