//! The cost of watching: one thread while runtimes are watched, and nothing for those that have shut down.

#![cfg(target_os = "linux")]

use support::runtimes;

use std::fs;
use std::time::Duration;

use opentelemetry_instrumentation_runtime::RuntimeMetrics;
use runtimes::{build, looks, until, value};
use tokio::runtime::{self, Runtime};

fn current_thread() -> Runtime {
    runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Returns the number of watcher threads in this process.
fn watchers() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "runtime-metrics").count()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_pages() -> usize {
    fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

#[track_caller]
fn until_watchers(count: usize) {
    until("the watcher's thread", || (watchers() == count).then_some(()));
}

// One test, because the process has one watcher.
#[test]
fn the_watcher() {
    outlasts_endless_settings();
    is_one_thread_from_the_first_runtime_to_the_last();
    keeps_nothing_of_a_thousand_runtimes();
}

fn outlasts_endless_settings() {
    let endless = RuntimeMetrics::builder().probe_interval(Duration::MAX).stall_threshold(Duration::MAX);
    let metrics = build(endless);
    let runtime = current_thread();
    metrics.watch_runtime("", runtime.handle());
    until_watchers(1);
    // The watcher notices the end, and ends instead of panicking.
    drop(runtime);
    until_watchers(0);
}

fn is_one_thread_from_the_first_runtime_to_the_last() {
    let metrics = build(RuntimeMetrics::builder());
    assert_eq!(watchers(), 0, "nothing to watch");
    let runtimes = [(); 3].map(|()| current_thread());
    runtimes.iter().for_each(|runtime| metrics.watch_runtime("", runtime.handle()));
    let more = build(RuntimeMetrics::builder().runtime("", runtimes[0].handle()));
    until_watchers(1);
    drop(runtimes);
    until_watchers(0);

    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    metrics.watch_runtime("", runtime.handle());
    until_watchers(1);
    more.watch_runtime("", runtime.handle());
    metrics.stop();
    looks(&more, 2);
    assert_eq!(watchers(), 1, "the other one goes on");
    drop(more);
    until_watchers(0);
    until("the probe ends", || (runtime.metrics().num_alive_tasks() == 0).then_some(()));
}

fn keeps_nothing_of_a_thousand_runtimes() {
    let metrics = build(RuntimeMetrics::builder());
    let watched_and_dropped = |count: usize, name: &dyn Fn(usize) -> String| {
        for index in 0..count {
            let runtime = current_thread();
            metrics.watch_runtime(name(index), runtime.handle());
            runtime.block_on(async { tokio::task::yield_now().await });
            assert_eq!(value(&metrics, "tokio.task.count"), Some(0.0));
        }
        until_watchers(0);
    };
    let each_its_own = |index: usize| format!("name {index}");
    let none = |_: usize| String::new();
    watched_and_dropped(500, &each_its_own);
    watched_and_dropped(100, &none);
    let (descriptors_before, pages_before) = (descriptors(), resident_pages());
    watched_and_dropped(1000, &each_its_own);
    watched_and_dropped(1000, &none);
    assert_eq!(descriptors(), descriptors_before);
    let grown = resident_pages().saturating_sub(pages_before);
    assert!(grown < 128, "{grown} pages more after 2000 runtimes");
}
