//! A small service with two leaks, and its metrics as they arrive over OTLP.
//!
//! `cargo run --release -p demo [-- --for 10s]`
//!
//! Without `OTEL_EXPORTER_OTLP_ENDPOINT` it receives its own exports and shows them as a table; with it, they go there.

mod load;

use support::receiver;

mod table;

use std::error::Error;
use std::future::pending;
use std::time::Duration;

use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, otlp};
use receiver::Receiver;
use table::Table;
use tokio::time::{interval, sleep};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let time = time_from(std::env::args().skip(1))?;
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        ship(time).await
    } else {
        show(time).await
    }
}

/// Exports to where the standard variables say.
async fn ship(time: Option<Duration>) -> Result<(), Box<dyn Error>> {
    let telemetry = otlp::install()?;
    // `init_runtime_metrics(&meter)`, and what glibc says beside it: the demo's heap is small enough to be asked.
    RuntimeMetrics::builder().glibc(true).build(&telemetry.meter());
    load::start();
    ended(time).await?;
    telemetry.shutdown()?;
    println!("the last export was delivered");
    Ok(())
}

/// Exports every second to a receiver in this process, over gRPC, and shows what arrives.
async fn show(time: Option<Duration>) -> Result<(), Box<dyn Error>> {
    let receiver = Receiver::start();
    let telemetry = otlp::builder()
        .endpoint(receiver.endpoint())
        .protocol(otlp::Protocol::Grpc)
        .interval(Duration::from_secs(1))
        .install()?;
    RuntimeMetrics::builder().glibc(true).build(&telemetry.meter());
    load::start();
    let mut table = Table::default();
    let mut ticks = interval(Duration::from_millis(200));
    let mut ended = Box::pin(ended(time));
    loop {
        tokio::select! {
            result = &mut ended => break result?,
            _ = ticks.tick() => refresh(&mut table, &receiver)?,
        }
    }
    telemetry.shutdown()?;
    refresh(&mut table, &receiver)?;
    println!("{} exports were received, the last one at shutdown", table.exports());
    Ok(())
}

fn refresh(table: &mut Table, receiver: &Receiver) -> std::io::Result<()> {
    for export in receiver.take() {
        table.add(&export);
        table.show()?;
    }
    Ok(())
}

/// Ctrl-C, a request to terminate, or the end of the time.
async fn ended(time: Option<Duration>) -> std::io::Result<()> {
    let timer = async {
        match time {
            Some(time) => sleep(time).await,
            None => pending().await,
        }
    };
    #[cfg(unix)]
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    #[cfg(unix)]
    let terminated = terminated.recv();
    #[cfg(not(unix))]
    let terminated = pending::<()>();
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminated => {}
        () = timer => {}
    }
    Ok(())
}

fn time_from(mut arguments: impl Iterator<Item = String>) -> Result<Option<Duration>, Box<dyn Error>> {
    match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (None, ..) => Ok(None),
        (Some("--for"), Some(time), None) => match humantime::parse_duration(&time) {
            Ok(time) => Ok(Some(time)),
            Err(error) => Err(format!("--for {time}: {error}").into()),
        },
        _ => Err("usage: demo [--for 10s]".into()),
    }
}
