//! The stacks of workers while they are stalled.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::hint::black_box;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::{RuntimeMetrics, TaskExt, profile};
use support::pace::repeat_when_late;
use support::runtimes::looks;
use tokio::runtime::{self, Runtime};

/// One test at a time: what is seen of stalls belongs to the process.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const LONG: Duration = Duration::from_millis(1500);

#[inline(never)]
fn blocks_in_sleep() {
    thread::sleep(LONG);
    black_box(());
}

static LOCK: Mutex<()> = Mutex::new(());

#[inline(never)]
fn blocks_for_a_lock() {
    drop(black_box(LOCK.lock()));
}

#[inline(never)]
fn blocks_in_read(pipe: &mut io::PipeReader) {
    let _ = black_box(pipe.read(&mut [0]));
}

#[inline(never)]
fn computes() {
    let start = Instant::now();
    let mut sum = 0_u64;
    while start.elapsed() < LONG * 2 {
        for number in 0..10_000_u64 {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(number));
        }
    }
}

#[inline(never)]
fn blocks_on_another_future() {
    thread::scope(|scope| {
        scope.spawn(|| {
            let inner = runtime::Builder::new_current_thread().enable_time().build().unwrap();
            inner.block_on(async { tokio::time::sleep(LONG).await });
        });
    });
    black_box(());
}

/// The texts of all stalls that a handler gets.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn metrics(&self) -> RuntimeMetrics {
        let seen = self.clone();
        let handler = move |stall: &profile::Stall| seen.lock().push(stall.to_string());
        RuntimeMetrics::builder().on_stall(handler).build(&opentelemetry::global::meter("test"))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stalls a runtime until a stack with a function was seen.
    fn assert_seen(&self, function: &str, stall: impl Fn()) {
        let start = Instant::now();
        loop {
            stall();
            let seen = self.lock();
            if let Some(text) = seen.iter().find(|text| text.contains(function)) {
                println!("{text}");
                assert!(!text.contains("scheduler::multi_thread"), "{text}");
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no {function} in {seen:?}");
        }
    }
}

fn multi_thread() -> Runtime {
    runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn on(runtime: &Runtime, run: impl FnOnce() + Send + 'static) {
    // Of a task with a name it is known that one poll lasts.
    runtime.block_on(runtime.spawn(async { run() }.with_task_name("test"))).unwrap();
}

#[test]
fn the_function_that_stalls_a_worker_is_named_while_it_does() {
    let _alone = alone();
    let seen = Seen::default();
    let metrics = seen.metrics();
    let runtime = multi_thread();
    metrics.watch_runtime("main", runtime.handle());
    seen.assert_seen("blocks_in_sleep", || on(&runtime, blocks_in_sleep));
    seen.assert_seen("blocks_for_a_lock", || {
        let held = LOCK.lock().unwrap();
        let stalled = runtime.spawn(async { blocks_for_a_lock() });
        thread::sleep(LONG);
        drop(held);
        runtime.block_on(stalled).unwrap();
    });
    seen.assert_seen("blocks_in_read", || {
        let (mut reader, writer) = io::pipe().unwrap();
        let stalled = runtime.spawn(async move { blocks_in_read(&mut reader) });
        thread::sleep(LONG);
        drop(writer);
        runtime.block_on(stalled).unwrap();
    });
    seen.assert_seen("computes", || on(&runtime, computes));
    seen.assert_seen("blocks_on_another_future", || on(&runtime, blocks_on_another_future));
    assert!(seen.lock().iter().all(|text| text.contains("of runtime main is stalled")));
}

#[test]
fn a_current_thread_runtime_and_two_at_once_are_seen() {
    let _alone = alone();
    let seen = Seen::default();
    let metrics = seen.metrics();
    let (one, two) = (multi_thread(), multi_thread());
    metrics.watch_runtime("one", one.handle());
    metrics.watch_runtime("two", two.handle());
    let current = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics.watch_runtime("current", current.handle());
    // A thread that drives it all the time: Tokio does not report whether one does.
    let is_over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&is_over);
    let driver = thread::spawn(move || {
        current.block_on(async {
            while !until.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(300)).await;
                blocks_in_sleep();
            }
        });
    });
    let start = Instant::now();
    let is_seen = |runtime: &str, function: &str| {
        let runtime = format!("of runtime {runtime} ");
        seen.lock().iter().any(|text| text.contains(&runtime) && text.contains(function))
    };
    while !(is_seen("one", "blocks_in_sleep")
        && is_seen("two", "computes")
        && is_seen("current", "blocks_in_sleep"))
    {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", seen.lock());
        let stalled =
            (one.spawn(async { blocks_in_sleep() }), two.spawn(async { computes() }.with_task_name("test")));
        one.block_on(stalled.0).unwrap();
        two.block_on(stalled.1).unwrap();
    }
    is_over.store(true, SeqCst);
    driver.join().unwrap();
}

#[test]
fn stalls_add_up_to_a_profile() {
    let _alone = alone();
    repeat_when_late(|| {
        // Without a handler, which would keep the watcher from looking while it writes stacks.
        let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
        let runtime = multi_thread();
        metrics.watch_runtime("profiled", runtime.handle());
        // The watcher finds the threads of the workers.
        looks(&metrics, 8);
        let before = profile::stalls();
        let stalled = runtime.spawn(async { blocks_in_sleep() }.with_task_name("stalling"));
        runtime.block_on(stalled).unwrap();
        looks(&metrics, 3);
        let profile = profile::stalls().delta(&before);
        let text = profile.to_string();
        let stack = text.split("\n\n").find(|stack| stack.contains("blocks_in_sleep"));
        let stack = stack.unwrap_or_else(|| panic!("{profile}"));
        assert!(stack.contains("cause=blocked runtime=profiled task=stalling"), "{stack}");
        // The threads that run tasks, from the future on.
        assert!(!stack.contains("tokio::runtime::scheduler"), "{stack}");
        let truth = LONG.as_nanos() as f64;
        let (exact, total) = (profile.exact_total().unwrap() as f64, profile.total() as f64);
        println!("{:.0} of {:.0} ms", total / 1e6, exact / 1e6);
        assert!((exact / truth - 1.0).abs() < 0.15, "{exact} of {truth}: {profile}");
        assert!((total / exact - 1.0).abs() < 0.15, "{total} of {exact}: {profile}");
    });
}
