//! Measures the cost of watching: the reading of a runtime of 16 workers beside Tokio's getters, and the watcher thread.
//!
//! `cargo bench -p benches --bench scheduler`, some 25 s; `-- 60` for a minute of the watcher.

use std::hint::black_box;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::RuntimeMetrics;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use tokio::runtime::{self, Runtime};

const ROUNDS: usize = 20_000;

/// The share of a core, in percent, by which watching 16 workers should exceed a thread that only waits at most. A busy machine, on
/// which it costs more to wake a worker for its probe, misses it.
const AIM: f64 = 0.02;

/// How many times each set of runtimes is watched. The median counts.
const WINDOWS: u32 = 5;

fn main() {
    reading();
    let seconds = std::env::args().filter_map(|argument| argument.parse().ok()).next_back().unwrap_or(20);
    let window = Duration::from_secs(seconds) / (2 * WINDOWS);
    println!(
        "\nwatching at the default interval of 100 ms, medians of {WINDOWS} times {window:?}, in % of a core"
    );
    let above = watching("1 runtime of 16 workers, idle", &[16], window);
    watching("10 runtimes of 4 workers, idle", &[4; 10], window);
    match above {
        Some(above) => {
            let missed = if above > AIM { ": missed" } else { "" };
            println!(
                "  1 runtime of 16 workers is {above:.4} above the thread that only waits, aim {AIM}{missed}"
            );
        }
        None => println!("  skipped: the system does not report the CPU time of a thread"),
    }
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

/// Measures the CPU time of the watcher thread and of a thread that only waits as often at the same time.
/// Returns by how much the first exceeds the second.
fn watching(what: &str, sizes: &[usize], window: Duration) -> Option<f64> {
    let runtimes: Vec<_> = sizes.iter().copied().map(workers).collect();
    let metrics = metrics(&runtimes.iter().collect::<Vec<_>>());
    std::thread::sleep(Duration::from_millis(500));
    let mut shares = [(); 3].map(|()| Vec::new());
    for _ in 0..WINDOWS {
        let waits = std::thread::Builder::new().name(WAITS.into()).spawn(move || wait(window)).ok()?;
        let start = Instant::now();
        let before = [cpu_of(WATCHER)?, cpu_of(WAITS)?];
        std::thread::sleep(window.mul_f64(0.9));
        let after = [cpu_of(WATCHER)?, cpu_of(WAITS)?];
        let percent = 100.0 / start.elapsed().as_secs_f64();
        let [watcher, waiter] =
            [0, 1].map(|index: usize| after[index].saturating_sub(before[index]).as_secs_f64() * percent);
        let all = [watcher, waiter, watcher - waiter];
        shares.iter_mut().zip(all).for_each(|(shares, share)| shares.push(share));
        waits.join().ok()?;
    }
    drop(metrics);
    let [watcher, waiter, above] = shares.map(|mut shares| {
        shares.sort_by(f64::total_cmp);
        shares[shares.len() / 2]
    });
    println!("  {what:<32} the watcher {watcher:.4}, a thread that only waits {waiter:.4}");
    Some(above)
}

const WATCHER: &str = "runtime-metrics";
const WAITS: &str = "bench-waits";

/// Waits ten times a second, as the watcher does.
fn wait(time: Duration) {
    let (mutex, never) = (Mutex::new(()), Condvar::new());
    let start = Instant::now();
    while start.elapsed() < time {
        let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        drop(never.wait_timeout(guard, Duration::from_millis(100)));
    }
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
