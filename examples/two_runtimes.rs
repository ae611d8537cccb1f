//! Finds the blocked one of two runtimes, one for I/O and one for CPU work, and how long it was blocked.
//!
//! `cargo run --example two_runtimes`

use std::thread;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{RuntimeMetrics, Snapshot, Value};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use tokio::runtime::{Builder, Runtime};
use tokio::time;

fn main() -> std::io::Result<()> {
    let io = Builder::new_multi_thread().name("io").worker_threads(2).enable_all().build()?;
    let cpu = Builder::new_multi_thread().name("cpu").worker_threads(2).enable_all().build()?;

    // This provider exports nothing. The program reads snapshots instead.
    let provider = SdkMeterProvider::default();
    let metrics = RuntimeMetrics::builder()
        .runtime("", io.handle())
        .runtime("", cpu.handle())
        .build(&provider.meter("two_runtimes"));

    serve(&io);
    compute(&cpu);
    println!("  s   runtime   stalls   stalled for   slowest wake-up");
    for quarter in 0..16 {
        if quarter == 4 {
            println!("      now a handler on `io` makes a blocking call of 1.5 s");
            io.spawn(async { thread::sleep(Duration::from_millis(1500)) });
        }
        thread::sleep(Duration::from_millis(250));
        let snapshot = metrics.snapshot();
        for name in ["io", "cpu"] {
            println!("{:>5.2} {}", f64::from(quarter + 1) / 4.0, line(&snapshot, name));
        }
    }
    let snapshot = metrics.snapshot();
    for name in ["io", "cpu"] {
        match stalls(&snapshot, name) {
            (0, _) => println!("`{name}` was not blocked"),
            (count, time) => println!("`{name}` was blocked, stalls: {count}, {time:.1} s in all"),
        }
    }
    Ok(())
}

/// Spawns short requests.
fn serve(runtime: &Runtime) {
    runtime.spawn(async {
        let mut requests = time::interval(Duration::from_millis(2));
        loop {
            requests.tick().await;
            tokio::spawn(time::sleep(Duration::from_millis(20)));
        }
    });
}

/// Computes in short pieces, so that no worker is blocked.
fn compute(runtime: &Runtime) {
    for _ in 0..4 {
        runtime.spawn(async {
            let mut numbers = 0_u64;
            loop {
                numbers = (0..10_000).fold(numbers, |sum, number| std::hint::black_box(sum ^ number));
                tokio::task::yield_now().await;
            }
        });
    }
}

/// Formats the values of one runtime.
fn line(snapshot: &Snapshot, runtime: &str) -> String {
    let (stalls, time) = stalls(snapshot, runtime);
    let slowest = match value(snapshot, "tokio.schedule.delay", runtime) {
        Some(Value::Histogram(delays)) => {
            let last = delays.counts.iter().rposition(|count| *count > 0);
            last.and_then(|bucket| delays.bounds.get(bucket)).copied()
        }
        _ => None,
    };
    let slowest = slowest.map(|bound| format!("<= {:.1} ms", bound * 1000.0)).unwrap_or_default();
    let bar = "#".repeat((time * 10.0).round() as usize);
    format!("  {runtime:<8} {stalls:>6} {time:>10.2} s   {slowest:<15} {bar}")
}

/// Returns the number of stalls and their total seconds.
fn stalls(snapshot: &Snapshot, runtime: &str) -> (u64, f64) {
    let count = value(snapshot, "tokio.worker.stalls", runtime).and_then(Value::as_u64);
    let time = value(snapshot, "tokio.worker.stall.time", runtime).and_then(Value::as_f64);
    (count.unwrap_or_default(), time.unwrap_or_default())
}

fn value<'a>(snapshot: &'a Snapshot, metric: &str, runtime: &str) -> Option<&'a Value> {
    let points = snapshot.get(metric)?.points().iter();
    let mut of_runtime = points.filter(|point| {
        point.attributes().get("tokio.runtime.name").is_some_and(|name| name.to_string() == runtime)
    });
    of_runtime.next().map(|point| point.value())
}
