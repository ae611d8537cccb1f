//! Measures parts of counting that are not plain code, beside plain versions.

use std::cell::RefCell;
use std::future::pending;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Instant;

use opentelemetry_instrumentation_runtime::TaskExt;
use tokio::runtime::{Builder, Runtime};
use tokio_metrics::TaskMonitor;

use crate::median;

const ROUNDS: usize = 41;
const CALLS: usize = 10_000;

pub(crate) fn compare() {
    println!("\nparts, median ns of {ROUNDS} rounds");
    row("a poll, without a runtime", poll(pending()));
    row("a poll with a name", poll(pending().with_task_name("bench: poll")));
    row("a poll under tokio_metrics", poll(TaskMonitor::new().instrument(pending())));
    row("two readings of `Instant`", || {
        black_box((Instant::now(), Instant::now()));
    });
    #[cfg(target_arch = "x86_64")]
    row("two readings of the time-stamp counter", || {
        black_box((counter(), counter()));
    });
    row("a reading of schedstat, once in 2^23 ticks", || {
        black_box(std::fs::read("/proc/thread-self/schedstat").is_ok());
    });
    row("a task with a name that a thread remembers", || drop(async {}.with_task_name("bench: static")));
    row("a task with its location", || drop(async {}.with_task_location()));
    row("a task with a name that is compared by its text", || {
        drop(async {}.with_task_name(String::from("bench: owned")))
    });
    let runtime = Builder::new_current_thread().build().expect("a runtime starts");
    let id = runtime.spawn(async {}).id();
    row("the standard hash of a task's id", || {
        black_box(BuildHasherDefault::<DefaultHasher>::new().hash_one(black_box(id)));
    });
    row("spawning and joining a plain task", spawn_on(&runtime));
    #[cfg(tokio_unstable)]
    {
        let mut builder = Builder::new_current_thread();
        let hooked = opentelemetry_instrumentation_runtime::task_hooks(&mut builder)
            .build()
            .expect("a runtime starts");
        row("the same under task_hooks", spawn_on(&hooked));
    }
}

/// Returns a function that polls a future.
fn poll(future: impl Future<Output = ()> + 'static) -> impl Fn() {
    let future: RefCell<Pin<Box<dyn Future<Output = ()>>>> = RefCell::new(Box::pin(future));
    move || {
        let mut context = Context::from_waker(Waker::noop());
        black_box(future.borrow_mut().as_mut().poll(&mut context).is_pending());
    }
}

fn spawn_on(runtime: &Runtime) -> impl Fn() {
    || runtime.block_on(async { tokio::spawn(async {}).await.expect("it does not panic") })
}

fn row(name: &str, call: impl Fn()) {
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| call());
        start.elapsed().as_nanos() as f64 / CALLS as f64
    });
    println!("{name:<48} {:>8.1}", median(times.collect()));
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the time-stamp counter is read by an intrinsic")]
fn counter() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and user mode may use it where `Instant` does.
    unsafe { std::arch::x86_64::_rdtsc() }
}
