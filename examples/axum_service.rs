//! An axum service with a graceful shutdown: `cargo run --example axum_service --features axum,otlp`
//!
//! A layer counts requests by route, and `spawn` counts background tasks by the line that spawns them.
//!
//! On Ctrl-C or SIGTERM the server accepts no further requests and finishes those that it has. Then the last export
//! includes them.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use opentelemetry::KeyValue;
use opentelemetry_instrumentation_runtime::tower::TaskNameLayer;
use opentelemetry_instrumentation_runtime::{CountingAllocator, TaskExt, init_runtime_metrics, otlp, spawn};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let telemetry = otlp::builder()
        .interval(Duration::from_secs(10))
        .resource([KeyValue::new("service.name", "axum-service")])
        .install()?;
    init_runtime_metrics(&telemetry.meter());

    let stopped = stopped()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let app = Router::new().route("/", get(hello)).layer(TaskNameLayer::new());
    let server = axum::serve(listener, app).with_graceful_shutdown(stopped);
    tokio::spawn(server.into_future().with_task_name("server")).await??;

    telemetry.shutdown()?;
    Ok(())
}

async fn hello() -> &'static str {
    spawn(audit());
    "hello\n"
}

async fn audit() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// Completes on Ctrl-C or SIGTERM.
///
/// It listens from the call on, not from the first poll: an earlier signal would end the program without a last export.
#[cfg(unix)]
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    })
}

#[cfg(windows)]
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupted = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupted.recv().await;
    })
}
