//! Finds a leaking task. A service spawns five kinds of tasks, and one kind never ends.
//!
//! `cargo run --example task_leak` counts tasks by the names that the program gives them.
//! `RUSTFLAGS='--cfg tokio_unstable' cargo run --example task_leak` counts them again without names, by the lines that
//! spawn them.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry::metrics::{MeterProvider, noop::NoopMeterProvider};
use opentelemetry_instrumentation_runtime::{RuntimeMetrics, TaskExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

mod by_name;

use by_name::by_name;

fn main() -> std::io::Result<()> {
    let mut builder = Builder::new_multi_thread();
    println!("By the names that the program gives:");
    report(&builder.worker_threads(2).enable_time().build()?, with_names);
    #[cfg(tokio_unstable)]
    {
        opentelemetry_instrumentation_runtime::task_hooks(&mut builder);
        println!("\nBy the lines that spawn them, with no name given:");
        report(&builder.build()?, without_names);
    }
    Ok(())
}

/// The state that the tasks of the service share.
struct Service {
    /// Never closed: a task that waits for its end waits forever.
    shutdown: watch::Sender<()>,
    messages: mpsc::Sender<u64>,
}

fn with_names(service: &Service, request: u64) {
    tokio::spawn(answer(request).with_task_name("answer"));
    tokio::spawn(log(service.messages.clone(), request).with_task_name("log"));
    tokio::spawn(refresh().with_task_name("refresh"));
    tokio::spawn(retry(request).with_task_name("retry"));
    tokio::spawn(notify(service.shutdown.subscribe()).with_task_name("notify"));
}

#[cfg(tokio_unstable)]
fn without_names(service: &Service, request: u64) {
    tokio::spawn(answer(request));
    tokio::spawn(log(service.messages.clone(), request));
    tokio::spawn(refresh());
    tokio::spawn(retry(request));
    tokio::spawn(notify(service.shutdown.subscribe()));
}

async fn answer(request: u64) -> u64 {
    sleep(Duration::from_millis(request % 5)).await;
    request
}

async fn log(messages: mpsc::Sender<u64>, request: u64) {
    let _ = messages.send(request).await;
}

async fn refresh() {
    sleep(Duration::from_millis(20)).await;
}

async fn retry(request: u64) {
    for attempt in 0..request % 4 {
        sleep(Duration::from_millis(attempt)).await;
    }
}

/// The leak: each request leaves a task that waits for the end of the service.
async fn notify(mut shutdown: watch::Receiver<()>) {
    while shutdown.changed().await.is_ok() {}
}

/// Serves requests and counts the live tasks after each five hundred.
fn report(runtime: &Runtime, spawn: fn(&Service, u64)) {
    let _entered = runtime.enter();
    let metrics = RuntimeMetrics::builder().build(&NoopMeterProvider::new().meter("task_leak"));
    let (messages, mut logged) = mpsc::channel(100);
    let service = Service { shutdown: watch::Sender::new(()), messages };
    let known = by_name(&metrics.snapshot(), "rust.task.count");
    let mut seen = BTreeMap::<String, Vec<u64>>::new();
    for hundreds in [5, 10, 15] {
        runtime.block_on(async {
            for request in 0..500 {
                spawn(&service, request);
                logged.recv().await;
            }
            // Tasks that do not leak end meanwhile.
            sleep(Duration::from_millis(200)).await;
        });
        for (name, alive) in by_name(&metrics.snapshot(), "rust.task.count") {
            if known.contains_key(&name) {
                continue;
            }
            let counts = seen.entry(name).or_default();
            // A name that appears for the first time had no task before.
            counts.resize(hundreds / 5 - 1, 0);
            counts.push(alive);
        }
    }
    println!("{:<32} tasks alive after 500, 1000 and 1500 requests", "rust.task.name");
    for (name, counts) in &seen {
        println!("{name:<32} {counts:?}");
    }
    for (name, _) in seen.iter().filter(|(_, counts)| counts.is_sorted_by(|a, b| a < b)) {
        println!("leaks: {name}");
    }
    metrics.stop();
}
