//! A service with a debug page in the browser, controlled by its standard input.
//!
//!     cargo run --release --example debug_page --features debug,profile
//!
//! `allocate MEGABYTES`, `free`, `spawn COUNT` and `stall SECONDS` change what the page shows. The service ends with the
//! input.

use std::alloc::System;
use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, Sampled, TaskExt, debug};
use tokio::runtime;

#[global_allocator]
static ALLOCATOR: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service = runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    // The global provider is not set: nothing is exported.
    let meter = opentelemetry::global::meter("example");
    let metrics = RuntimeMetrics::builder()
        .runtime("service", service.handle())
        // A sample in 64 KiB on average shows also what is small.
        .heap_profile(64 * 1024)
        .build(&meter);
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let server = debug::serve(address, &metrics)?;
    println!("http://{}/debug/runtime", server.local_addr());
    io::stdout().flush()?;

    for worker in ["orders", "payments"] {
        service.spawn(requests().with_task_name(worker));
    }
    let mut kept = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (command, amount) = line.split_once(' ').unwrap_or((&line, "1"));
        let amount = amount.parse::<usize>()?;
        match command {
            "allocate" => kept.push(document(amount * 1_000_000)),
            "free" => kept.clear(),
            "spawn" => (0..amount).for_each(|_| {
                service.spawn(std::future::pending::<()>().with_task_name("forgotten"));
            }),
            "stall" => {
                let blocking = Duration::from_secs(amount as u64);
                service.spawn(async move { ask_database(blocking) }.with_task_name("blocking"));
            }
            _ => eprintln!("unknown: {line}"),
        }
    }
    server.stop();
    Ok(())
}

/// Holds memory for as long as the caller keeps it.
#[inline(never)]
fn document(bytes: usize) -> Vec<u8> {
    black_box(vec![1; bytes])
}

/// Blocks the worker.
#[inline(never)]
fn ask_database(time: Duration) {
    std::thread::sleep(time);
    black_box(time);
}

/// Allocates a varying amount again and again.
async fn requests() {
    let mut size = 0;
    loop {
        size = (size + 37) % 4096;
        let answer: Vec<String> = (0..size / 64).map(|line| format!("line {line}")).collect();
        tokio::time::sleep(Duration::from_millis(2)).await;
        drop(answer);
    }
}
