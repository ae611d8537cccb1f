//! Measures the CPU time of the debug server's two threads for each second, without and with viewers of the page.
//!
//! `cargo bench -p benches --bench debug`, with `-- 600` after a history of ten minutes instead of twenty seconds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, TaskExt, debug};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::system();

const PHASE: Duration = Duration::from_secs(10);

fn main() {
    if !cfg!(target_os = "linux") {
        println!("skipped: the CPU time of a thread is read on Linux only");
        return;
    }
    let history = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(20);
    let service = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let metrics = RuntimeMetrics::builder()
        .runtime("service", service.handle())
        .build(&opentelemetry::global::meter("bench"));
    // The default limit of task names.
    for task in 0..200 {
        service.spawn(std::future::pending::<()>().with_task_name(format!("task {task}")));
    }
    let server = debug::serve("127.0.0.1:0", &metrics).expect("a free port");

    println!("a history of {history} s, 200 names of tasks; CPU time a second over {} s", PHASE.as_secs());
    println!("{:<10} {:>14} {:>14} {:>16}", "viewers", "snapshots, ms", "server, ms", "sent, kB/viewer");
    std::thread::sleep(Duration::from_secs(history));
    let mut viewers = Vec::new();
    let sent = Arc::new(AtomicU64::new(0));
    for count in [0_usize, 1, 8] {
        while viewers.len() < count {
            viewers.push(view(server.local_addr(), Arc::clone(&sent)));
        }
        // After the first view of the page.
        std::thread::sleep(Duration::from_secs(2));
        let (start, before, sent_before) = (Instant::now(), used(), sent.load(Ordering::Relaxed));
        std::thread::sleep(PHASE);
        let seconds = start.elapsed().as_secs_f64();
        let after = used();
        let each = (sent.load(Ordering::Relaxed) - sent_before) as f64 / seconds / count.max(1) as f64 / 1e3;
        let [snapshots, server] =
            [0, 1].map(|thread| (after[thread] - before[thread]) as f64 / 1e6 / seconds);
        println!("{count:<10} {snapshots:>14.3} {server:>14.3} {each:>16.1}");
    }
    server.stop();
}

/// Starts a thread that reads the events of the page until the server ends.
fn view(address: SocketAddr, sent: Arc<AtomicU64>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.write_all(b"GET /debug/runtime/plots HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
        let mut buffer = [0; 1 << 16];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            sent.fetch_add(read as u64, Ordering::Relaxed);
        }
    })
}

/// Returns the CPU time of the thread of the snapshots and of the server's thread, in nanoseconds.
fn used() -> [u64; 2] {
    ["runtime-history", "runtime-debug"].map(|name| {
        let tasks = std::fs::read_dir("/proc/self/task").expect("Linux").flatten();
        let mut own = tasks.filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        });
        let task = own.next().expect("the thread runs").path();
        let times = std::fs::read_to_string(task.join("schedstat")).expect("the kernel keeps it");
        times.split(' ').next().and_then(|time| time.parse().ok()).expect("a number")
    })
}
