//! Measures a counted poll beside a plain one and one under `tokio_metrics`, a named task and its parts, a request under
//! `tower::TaskNameLayer`, and a million live named tasks.
//!
//! `cargo bench -p benches --bench task`, and the same under `RUSTFLAGS='--cfg tokio_unstable'` for the hooks.
//! With the name of one kind of poll (`plain`, `named`, `tokio_metrics`, `empty_hooks`, `task_hooks`) as its argument,
//! it only makes 960 000 of those polls, for callgrind; with that of a request (`"an axum route"`), 100 000 of those.

mod parts;
mod requests;

use std::future::pending;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Barrier;
use std::task::{Context, Poll};
use std::time::Instant;

use opentelemetry::metrics::{MeterProvider, noop::NoopMeterProvider};
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, TaskExt, measure};
use tokio::runtime::{Builder, Runtime};
use tokio_metrics::TaskMonitor;

/// With this allocator the library reads its counters twice a poll, to count memory by task.
#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

const TASKS: usize = 16;
const POLLS: usize = 4_000;
const ROUNDS: usize = 41;
const NAME: &str = "bench";

fn main() {
    let monitor = TaskMonitor::new();
    let kinds = kinds(&monitor);
    let asked = std::env::args().nth(1).unwrap_or_default();
    if requests::repeat(&asked) {
        return;
    }
    if let Some(kind) = kinds.iter().find(|kind| kind.name == asked) {
        let runtime = (kind.runtime)();
        for _ in 0..1_000_000 / (TASKS * POLLS) {
            black_box(nanoseconds_per_poll(kind, &runtime));
        }
        return;
    }
    for threads in [1, 2] {
        compare(&kinds, threads);
    }
    parts::compare();
    requests::compare();
    a_million();
}

/// A way to poll.
#[derive(Clone)]
struct Kind<'a> {
    name: &'static str,
    runtime: fn() -> Runtime,
    spawn: fn(&Runtime, &'a TaskMonitor),
    monitor: &'a TaskMonitor,
    /// The kind that its cost is compared with.
    base: &'static str,
}

fn kinds(monitor: &TaskMonitor) -> Vec<Kind<'_>> {
    let plain = || Builder::new_current_thread().build().expect("a runtime starts");
    let kind = |name, spawn| Kind { name, runtime: plain, spawn, monitor, base: "plain" };
    #[cfg_attr(not(tokio_unstable), allow(unused_mut, reason = "only hooks add to it"))]
    let mut kinds = vec![
        kind("plain", |runtime, _| drop(runtime.spawn(Polls(POLLS)))),
        kind("named", |runtime, _| drop(runtime.spawn(Polls(POLLS).with_task_name(NAME)))),
        kind("tokio_metrics", |runtime, monitor| drop(runtime.spawn(monitor.instrument(Polls(POLLS))))),
    ];
    #[cfg(tokio_unstable)]
    {
        let hooked = |name, runtime| Kind {
            name,
            runtime,
            spawn: |runtime, _| drop(runtime.spawn(Polls(POLLS))),
            monitor,
            base: "empty_hooks",
        };
        kinds.push(hooked("empty_hooks", || {
            let mut builder = Builder::new_current_thread();
            builder
                .on_task_spawn(|_| {})
                .on_before_task_poll(|_| {})
                .on_after_task_poll(|_| {})
                .on_task_terminate(|_| {});
            builder.build().expect("a runtime starts")
        }));
        kinds.push(hooked("task_hooks", || {
            let mut builder = Builder::new_current_thread();
            opentelemetry_instrumentation_runtime::task_hooks(&mut builder);
            builder.build().expect("a runtime starts")
        }));
    }
    kinds
}

/// A future that is ready at the last of a number of polls.
struct Polls(usize);

impl Future for Polls {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0 -= 1;
        if self.0 == 0 {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Each thread drives its own runtime; all share the name or the monitor. The kinds take turns.
fn compare(kinds: &[Kind<'_>], threads: usize) {
    let mut times = vec![Vec::new(); kinds.len()];
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let runtimes: Vec<_> = kinds.iter().map(|kind| (kind.runtime)()).collect();
                    let mut own = vec![Vec::new(); kinds.len()];
                    for _ in 0..ROUNDS {
                        for ((kind, runtime), own) in kinds.iter().zip(&runtimes).zip(&mut own) {
                            barrier.wait();
                            own.push(nanoseconds_per_poll(kind, runtime));
                        }
                    }
                    own
                })
            })
            .collect();
        for worker in workers {
            let own = worker.join().expect("no thread panics");
            times.iter_mut().zip(own).for_each(|(times, own)| times.extend(own));
        }
    });
    let medians: Vec<_> = times.into_iter().map(median).collect();
    let of = |name: &str| {
        kinds.iter().zip(&medians).find(|(kind, _)| kind.name == name).map_or(0.0, |(_, ns)| *ns)
    };
    println!(
        "\n{threads} thread(s), ns per poll, median of {} rounds of {} polls",
        ROUNDS * threads,
        TASKS * POLLS
    );
    println!("{:<16} {:>8} {:>8}", "", "whole", "extra");
    for (kind, whole) in kinds.iter().zip(&medians) {
        println!("{:<16} {whole:>8.1} {:>8.1}", kind.name, whole - of(kind.base));
    }
    let rival = of("tokio_metrics") - of("plain");
    println!(
        "named: {:.0} % of what tokio_metrics adds (limit 10 %)",
        (of("named") - of("plain")) / rival * 100.0
    );
    if cfg!(tokio_unstable) {
        println!("task_hooks: {:.1} ns over empty hooks (limit 25 ns)", of("task_hooks") - of("empty_hooks"));
    }
}

fn nanoseconds_per_poll(kind: &Kind<'_>, runtime: &Runtime) -> f64 {
    (0..TASKS).for_each(|_| (kind.spawn)(runtime, kind.monitor));
    let start = Instant::now();
    runtime.block_on(async {
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    });
    start.elapsed().as_nanos() as f64 / (TASKS * POLLS) as f64
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn a_million() {
    const MANY: usize = 1_000_000;
    let metrics = RuntimeMetrics::builder().process(false).build(&NoopMeterProvider::new().meter("bench"));
    let collection = || {
        let times = (0..1_001).map(|_| {
            let start = Instant::now();
            black_box(metrics.snapshot());
            start.elapsed().as_nanos() as f64 / 1e3
        });
        median(times.collect())
    };
    let one = pending::<()>().with_task_name("leak");
    println!(
        "\na million tasks that never end; a name adds {} bytes to a future",
        size_of_val(&one) - size_of::<std::future::Pending<()>>()
    );
    println!("{:<24} {:>14} {:>18}", "", "bytes per task", "us per collection");
    println!("{:<24} {:>14} {:>18.1}", "one named", "", collection());
    for (kind, named) in [("a million plain", false), ("a million named", true)] {
        let runtime = Builder::new_current_thread().build().expect("a runtime starts");
        let ((), stats) = measure(|| {
            for _ in 0..MANY {
                if named {
                    runtime.spawn(pending::<()>().with_task_name("leak"));
                } else {
                    runtime.spawn(pending::<()>());
                }
            }
        });
        let each = (stats.allocated - stats.deallocated) as f64 / MANY as f64;
        println!("{kind:<24} {each:>14.0} {:>18.1}", collection());
    }
    drop(one);
}
