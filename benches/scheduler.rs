//! Measures the cost of watching: the reading of a runtime of 16 workers beside Tokio's getters, and the watcher thread.
//!
//! `cargo bench -p benches --bench scheduler`, some 15 s; `-- 60` for a minute of the watcher.

use std::hint::black_box;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::RuntimeMetrics;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use tokio::runtime::{self, Runtime};

const ROUNDS: usize = 20_000;

fn main() {
    reading();
    let seconds = std::env::args().filter_map(|argument| argument.parse().ok()).next_back().unwrap_or(10);
    watching(Duration::from_secs(seconds));
    waiting(Duration::from_secs(seconds));
}

fn workers(count: usize) -> Runtime {
    runtime::Builder::new_multi_thread().worker_threads(count).enable_all().build().expect("a runtime")
}

fn metrics(runtimes: &[&Runtime]) -> RuntimeMetrics {
    let provider = SdkMeterProvider::default();
    let builder = RuntimeMetrics::builder().process(false);
    let builder = runtimes.iter().fold(builder, |builder, runtime| builder.runtime("", runtime.handle()));
    builder.build(&provider.meter("scheduler"))
}

/// Measures a snapshot with a runtime, minus one without, minus Tokio's getters.
fn reading() {
    let runtime = workers(16);
    let (without, with) = (metrics(&[]), metrics(&[&runtime]));
    let tokio = runtime.metrics();
    let getters = || {
        black_box(tokio.num_alive_tasks() + tokio.global_queue_depth());
        for worker in 0..tokio.num_workers() {
            // The rows count parked workers separately, so that they read the parity twice.
            black_box(tokio.worker_park_unpark_count(worker));
            black_box(tokio.worker_park_count(worker));
            black_box(tokio.worker_total_busy_duration(worker));
        }
        unstable_getters(&tokio);
    };
    let mut times = [(); 3].map(|()| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        times[0].push(timed(|| drop(black_box(without.snapshot()))));
        times[1].push(timed(|| drop(black_box(with.snapshot()))));
        times[2].push(timed(getters));
    }
    let [without, with, getters] = times.map(median);
    let build = if cfg!(tokio_unstable) { "tokio_unstable" } else { "stable" };
    println!("reading a runtime of 16 workers ({build}), medians of {ROUNDS}, the three in turn");
    println!("  snapshot without a runtime       {:>7.2} us", micros(without));
    println!("  snapshot with the runtime        {:>7.2} us", micros(with));
    println!("  Tokio's getters of the same      {:>7.2} us", micros(getters));
    println!(
        "  on top of Tokio's getters        {:>7.2} us",
        micros(with) - micros(without) - micros(getters)
    );
}

#[cfg(tokio_unstable)]
fn unstable_getters(tokio: &runtime::RuntimeMetrics) {
    black_box(
        tokio.num_blocking_threads() + tokio.num_idle_blocking_threads() + tokio.blocking_queue_depth(),
    );
    black_box(
        tokio.spawned_tasks_count() + tokio.remote_schedule_count() + tokio.budget_forced_yield_count(),
    );
    black_box(tokio.io_driver_fd_registered_count() + tokio.io_driver_fd_deregistered_count());
    black_box(tokio.io_driver_ready_count());
    for worker in 0..tokio.num_workers() {
        black_box(tokio.worker_local_queue_depth(worker));
        black_box(tokio.worker_poll_count(worker) + tokio.worker_local_schedule_count(worker));
        black_box(tokio.worker_steal_count(worker) + tokio.worker_steal_operations(worker));
        black_box(tokio.worker_noop_count(worker) + tokio.worker_overflow_count(worker));
    }
}

#[cfg(not(tokio_unstable))]
fn unstable_getters(_: &runtime::RuntimeMetrics) {}

/// Measures the CPU time of the watcher thread and of the whole process, whose runtimes only run probes.
fn watching(time: Duration) {
    println!("\nwatching at the default interval of 100 ms for {time:?}, CPU seconds per hour");
    for (what, sizes) in
        [("1 runtime of 16 workers, idle", vec![16]), ("10 runtimes of 4 workers, idle", vec![4; 10])]
    {
        let runtimes: Vec<_> = sizes.into_iter().map(workers).collect();
        let metrics = metrics(&runtimes.iter().collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(500));
        let (Some(thread), Some(process)) = (cpu_of("runtime-metrics"), cpu_of("")) else {
            println!("  skipped: the system does not report the CPU time of a thread");
            return;
        };
        let start = Instant::now();
        std::thread::sleep(time / 2);
        let elapsed = start.elapsed().as_secs_f64();
        let spent = |name, before: Duration| {
            cpu_of(name).unwrap_or_default().saturating_sub(before).as_secs_f64() / elapsed
        };
        let (thread, process) = (spent("runtime-metrics", thread), spent("", process));
        println!(
            "  {what:<32} the thread {:>6.2} s = {:.4} % of a core, with the probes {:>6.2} s",
            thread * 3600.0,
            thread * 100.0,
            process * 3600.0
        );
        drop(metrics);
    }
}

/// Measures the CPU time of a thread that only waits ten times a second, for comparison.
fn waiting(time: Duration) {
    let waits = (time.as_millis() / 100) as u32;
    let name = "bench-waits";
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
        let (mutex, never) = (Mutex::new(()), Condvar::new());
        let start = Instant::now();
        for _ in 0..waits {
            let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
            drop(never.wait_timeout(guard, Duration::from_millis(100)));
        }
        cpu_of(name).unwrap_or_default().as_secs_f64() / start.elapsed().as_secs_f64()
    });
    let share = thread.ok().and_then(|thread| thread.join().ok()).unwrap_or_default();
    println!(
        "  {:<32} the thread {:>6.2} s = {:.4} % of a core",
        "a thread that only waits",
        share * 3600.0,
        share * 100.0
    );
}

/// Returns the CPU time of all threads whose name has a prefix.
fn cpu_of(name: &str) -> Option<Duration> {
    let mut nanos = 0;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let path = thread.ok()?.path();
        if std::fs::read_to_string(path.join("comm")).ok()?.starts_with(name) {
            let times = std::fs::read_to_string(path.join("schedstat")).ok()?;
            nanos += times.split(' ').next()?.parse::<u64>().ok()?;
        }
    }
    Some(Duration::from_nanos(nanos))
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
