//! The profile of tasks by the line where each waits.

#![cfg(all(
    tokio_unstable,
    tokio_taskdump,
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

use std::time::Duration;

use opentelemetry_instrumentation_runtime::{TaskExt, profile};
use tokio::sync::watch;

#[inline(never)]
async fn waits_for_the_end(mut end: watch::Receiver<()>) {
    let _ = end.changed().await;
}

#[inline(never)]
async fn sleeps() {
    tokio::time::sleep(Duration::from_secs(600)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_has_the_stack_of_the_await_that_it_waits_in() {
    let end = watch::Sender::new(());
    let tasks: Vec<_> = (0..3).map(|_| tokio::spawn(waits_for_the_end(end.subscribe()))).collect();
    let sleeper = tokio::spawn(sleeps().with_task_name("sleeper"));
    let runtime = tokio::runtime::Handle::current();
    let dump = profile::tasks_with_await_points(&runtime);
    let profile = tokio::time::timeout(Duration::from_secs(60), dump).await.unwrap();
    assert_eq!(profile.error(), None);
    assert_eq!(profile.exact_total(), Some(4));
    let folded = profile.to_folded();
    let waiting = |function: &str| -> i64 {
        let lines = folded.lines().filter(|line| line.contains(function));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum()
    };
    assert_eq!(waiting("waits_for_the_end"), 3, "{folded}");
    assert_eq!(waiting("::sleeps"), 1, "{folded}");
    // The tasks go on as if nothing had happened.
    sleeper.abort();
    drop(end);
    for task in tasks {
        task.await.unwrap();
    }
}
