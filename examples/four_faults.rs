//! Finds four faults of a service by the output of this library alone: tasks that leak, memory that leaks, a call that
//! blocks, and a channel that grows.
//!
//! `cargo run --example four_faults --features axum,debug,profile`
//!
//! With an address, such as `127.0.0.1:6060`, it goes on until Ctrl-C and serves the debug page and its profiles there:
//! `docs/find-it.md` finds the faults by them.
//!
//! The service names nothing by hand. A layer names its requests by route, `spawn` names its tasks by line, and a heap
//! profile says which of them hold memory.

use std::alloc::System;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::routing::{get, post};
use opentelemetry::metrics::{MeterProvider, noop::NoopMeterProvider};
use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile};
use opentelemetry_instrumentation_runtime::tower::TaskNameLayer;
use opentelemetry_instrumentation_runtime::{
    CountingAllocator, RuntimeMetrics, Sampled, Snapshot, debug, spawn,
};
use tokio::sync::{mpsc, watch};
use tower_service::Service;

mod by_name;

use by_name::by_name;

#[global_allocator]
static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A short run needs more samples than one in 512 KiB.
    HeapProfile::start(16 * 1024)?;
    let metrics = RuntimeMetrics::builder().build(&NoopMeterProvider::new().meter("four_faults"));
    if let Some(address) = std::env::args().nth(1) {
        // Long enough for a stall with a stack.
        let app = app(Duration::from_millis(400));
        let server = debug::serve(address, &metrics)?;
        println!("http://{}/debug/runtime", server.local_addr());
        spawn(load_forever(app));
        return Ok(tokio::signal::ctrl_c().await?);
    }
    let mut app = app(Duration::from_millis(20));
    load(&mut app, 0..100).await?;
    let (before, heap) = (metrics.snapshot(), profile::heap());
    load(&mut app, 100..500).await?;
    let (after, heap) = (metrics.snapshot(), profile::heap().delta(&heap));

    println!("tasks leak (rust.task.count): {}", grown(&before, &after, "rust.task.count", 300));
    println!("polls block (rust.task.slow_polls): {}", grown(&before, &after, "rust.task.slow_polls", 10));
    println!(
        "memory grows (rust.task.memory.used): {}",
        grown(&before, &after, "rust.task.memory.used", 1_000_000)
    );
    println!("functions of this program that hold it (profile::heap):");
    for line in heap.to_folded().lines().take(4) {
        // The stack from the root to the leaf, and its bytes.
        let Some((stack, bytes)) = line.rsplit_once(' ') else { continue };
        if let Some(function) = stack.rsplit(';').find(|function| function.starts_with("four_faults::")) {
            println!("    {function}: {bytes} bytes");
        }
    }
    Ok(())
}

/// Returns the names of the tasks for which a metric has grown by more than `limit`.
fn grown(before: &Snapshot, after: &Snapshot, metric: &str, limit: u64) -> String {
    let before = by_name(before, metric);
    let grown = by_name(after, metric)
        .into_iter()
        .filter(|(name, value)| value.saturating_sub(before.get(name).copied().unwrap_or_default()) > limit);
    grown.map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

/// The state of the service.
#[derive(Clone)]
struct Shop {
    shutdown: watch::Sender<()>,
    reports: Arc<Mutex<BTreeMap<u64, Vec<u8>>>>,
    events: mpsc::UnboundedSender<Vec<u8>>,
    /// The time for which a price blocks now and then.
    blocking: Duration,
}

fn app(blocking: Duration) -> Router {
    let (events, received) = mpsc::unbounded_channel();
    spawn(store_events(received));
    let shop = Shop { shutdown: watch::Sender::new(()), reports: Arc::default(), events, blocking };
    Router::new()
        .route("/order/{id}", get(order))
        .route("/report/{id}", get(report))
        .route("/price/{id}", get(price))
        .route("/event/{id}", post(event))
        .route("/subscribe/{id}", post(subscribe))
        .with_state(shop)
        .layer(TaskNameLayer::new())
}

/// Sends requests without a network.
async fn load(app: &mut Router, ids: std::ops::Range<u64>) -> Result<(), axum::http::Error> {
    for id in ids {
        for (method, route) in
            [("GET", "order"), ("GET", "report"), ("GET", "price"), ("POST", "event"), ("POST", "subscribe")]
        {
            let request =
                Request::builder().method(method).uri(format!("/{route}/{id}")).body(Body::empty())?;
            let Ok(response) = app.call(request).await;
            // The body is part of the request.
            drop(axum::body::to_bytes(response.into_body(), 1_000_000).await);
        }
    }
    Ok(())
}

/// Sends some 40 requests a second to each route.
async fn load_forever(mut app: Router) {
    for batch in 0.. {
        if let Err(error) = load(&mut app, batch * 20..batch * 20 + 20).await {
            eprintln!("{error}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// No fault: much memory, which is freed.
async fn order(Path(id): Path<u64>) -> String {
    let lines: Vec<_> = (0..100).map(|line| format!("order {id}, line {line:060}")).collect();
    tokio::task::yield_now().await;
    lines.concat()
}

/// The first fault: each request leaves a task that waits for the end of the service.
async fn subscribe(State(shop): State<Shop>) {
    let mut shutdown = shop.shutdown.subscribe();
    spawn(async move { while shutdown.changed().await.is_ok() {} });
}

/// The second fault: a cache that is never emptied.
async fn report(State(shop): State<Shop>, Path(id): Path<u64>) {
    let report = vec![7; 10_000];
    if let Ok(mut reports) = shop.reports.lock() {
        reports.insert(id, report);
    }
}

/// The third fault: a call that blocks the worker.
async fn price(State(shop): State<Shop>, Path(id): Path<u64>) {
    if id % 20 == 0 {
        std::thread::sleep(shop.blocking);
    }
}

/// The fourth fault: events come faster than they are stored.
async fn event(State(shop): State<Shop>) {
    let _ = shop.events.send(vec![7; 5_000]);
}

async fn store_events(mut events: mpsc::UnboundedReceiver<Vec<u8>>) {
    while events.recv().await.is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
