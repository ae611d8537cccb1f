//! A server with one current-thread runtime for each of its threads, as actix-web and ntex start them: each thread has its
//! runtime watched. Tasks of a `LocalSet`, which Tokio does not count, get a name.
//!
//! `cargo run --example runtime_per_worker` prints the tasks by runtime and by name.

use std::sync::Barrier;
use std::thread;

use opentelemetry_instrumentation_runtime::{RuntimeMetrics, TaskExt, init_runtime_metrics};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local, yield_now};

fn main() -> std::io::Result<()> {
    let metrics = init_runtime_metrics(&opentelemetry::global::meter("runtime-per-worker"));
    let ready = Barrier::new(3);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| worker(&metrics, &ready));
        }
        ready.wait();
        print(&metrics);
        ready.wait();
    });
    Ok(())
}

/// With actix-web this is the factory of `HttpServer::new`, which runs once on each worker:
/// `HttpServer::new(move || { metrics.watch_current_runtime("server"); App::new() })`.
fn worker(metrics: &RuntimeMetrics, ready: &Barrier) {
    let Ok(runtime) = Builder::new_current_thread().build() else { return };
    LocalSet::new().block_on(&runtime, async {
        metrics.watch_current_runtime("server");
        tokio::spawn(std::future::pending::<()>());
        spawn_local(std::future::pending::<()>().with_task_name("local"));
        // The tasks run for the first time.
        yield_now().await;
        ready.wait();
        ready.wait();
    });
}

fn print(metrics: &RuntimeMetrics) {
    for runtime in metrics.runtimes() {
        println!("watched: {} with {} worker", runtime.name, runtime.workers);
    }
    let snapshot = metrics.snapshot();
    for name in ["tokio.task.count", "rust.task.count"] {
        let points = snapshot.get(name).map(|reading| reading.points()).unwrap_or_default();
        for point in points {
            let attributes: Vec<_> =
                point.attributes().iter().map(|(key, value)| format!("{key}={value}")).collect();
            println!("{name} {}: {:?}", attributes.join(" "), point.value().as_u64());
        }
    }
}
