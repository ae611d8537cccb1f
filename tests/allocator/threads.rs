//! Short-lived threads lose no count and leave no memory. The counts are those of the whole process, hence one test function.

#![cfg(unix)]

use std::cell::Cell;
use std::ffi::c_void;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics};
use opentelemetry_sdk::metrics::SdkMeterProvider;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

const NAMES: [&str; 5] = [
    "rust.memory.allocated",
    "rust.memory.deallocated",
    "rust.memory.allocations",
    "rust.memory.deallocations",
    "rust.memory.used",
];

/// Runs after all destructors of thread-locals, including the allocator's.
extern "C" fn destructor(_: *mut c_void) {
    for size in 1..=3 {
        drop(black_box(vec![0_u8; size]));
    }
}

/// Starts threads one after the other. Each allocates this much, also after the destructors of its thread-locals.
fn threads(count: usize, size: usize, key: Option<libc::pthread_key_t>) {
    for _ in 0..count {
        let body = move || {
            if size > 0 {
                drop(black_box(vec![0_u8; size]));
            }
            if let Some(key) = key {
                assert_eq!(unsafe { libc::pthread_setspecific(key, std::ptr::dangling::<c_void>()) }, 0);
            }
        };
        thread::Builder::new().stack_size(16 * 1024).spawn(body).unwrap().join().unwrap();
    }
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn short_threads_lose_no_count_and_leave_no_growth() {
    let mut key = 0;
    assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(destructor)) }, 0);
    let provider = SdkMeterProvider::default();
    let metrics = RuntimeMetrics::builder().build(&provider.meter("test"));
    let read = || {
        let snapshot = metrics.snapshot();
        NAMES.map(|name| snapshot.get(name).unwrap().value().unwrap().as_u64().unwrap() as i64)
    };
    let change = |act: &dyn Fn()| {
        let first = read();
        let second = read();
        act();
        let third = read();
        std::array::from_fn::<i64, 5, _>(|i| third[i] - second[i] - (second[i] - first[i]))
    };
    _ = read();
    threads(10, 100, Some(key));

    // First the cost of a thread itself, then with its allocations.
    let count = 1_000;
    let bare = change(&|| threads(count, 0, None));
    let busy = change(&|| threads(count, 100, Some(key)));
    let difference: [i64; 5] = std::array::from_fn(|i| busy[i] - bare[i]);
    assert_eq!(difference, [106, 106, 4, 4, 0].map(|each| each * count as i64));

    // A million threads with `--test-threads=1`. Otherwise the harness allocates after a minute to report that the test is
    // still running: a hundred thousand, or those of the first forty seconds.
    let alone = std::env::args().any(|argument| argument == "--test-threads=1");
    let (most, time) = if alone { (1_000_000, Duration::MAX) } else { (100_000, Duration::from_secs(40)) };
    let resident = resident_bytes();
    let (start, started) = (Instant::now(), Cell::new(0));
    let many = change(&|| {
        while started.get() < most && start.elapsed() < time {
            threads(1_000, 100, Some(key));
            started.set(started.get() + 1_000);
        }
    });
    let count = started.get();
    println!("{count} threads");
    let growth = resident_bytes().saturating_sub(resident);
    assert_eq!(many, busy.map(|of_some| of_some / 1_000 * count as i64));
    assert_eq!(many[4], 0);
    if std::env::var_os("ASAN_OPTIONS").is_some() {
        eprintln!("not checked: the growth, since the sanitizer keeps a record of every thread there was");
        return;
    }
    assert!(growth < 4 * 1024 * 1024, "{growth} bytes more in memory after {count} threads");
}
