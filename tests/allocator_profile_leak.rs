//! The heap profile of a known leak names the function and the task, also in `go tool pprof`.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it expects by panicking"
)]

use std::alloc::System;
use std::process::Command;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile, Label};
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, Sampled, TaskExt};
use opentelemetry_sdk::metrics::SdkMeterProvider;

#[global_allocator]
static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

const LEAKED: u64 = 20_000_000;

struct Cache<T>(Vec<Vec<T>>);

impl<T: Clone + Default> Cache<T> {
    /// Inlined into its caller, and generic.
    #[inline(always)]
    fn remember(&mut self, len: usize) {
        self.0.push(vec![T::default(); len]);
    }
}

#[inline(never)]
fn leaking_function(cache: &mut Cache<u8>) {
    for _ in 0..LEAKED / 1000 {
        cache.remember(1000);
    }
}

/// Allocates more, but frees it.
#[inline(never)]
fn busy_function() {
    for _ in 0..50_000 {
        drop(std::hint::black_box(vec![1_u8; 1000]));
    }
}

#[test]
fn the_leak_comes_first() {
    let metrics =
        RuntimeMetrics::builder().heap_profile(16 * 1024).build(&SdkMeterProvider::default().meter("test"));
    assert_eq!(HeapProfile::running().unwrap().mean(), 16 * 1024);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut cache = Cache(Vec::new());
    runtime.block_on(async { leaking_function(&mut cache) }.with_task_name("leaky"));
    runtime.block_on(async { busy_function() }.with_task_name("busy"));
    let near = |value: f64, exact: f64| (value - exact).abs() < 0.25 * exact;

    let snapshot = metrics.snapshot();
    let reading = snapshot.get("rust.task.memory.used").unwrap();
    let used = |name: &str| {
        let is_of = |point: &&opentelemetry_instrumentation_runtime::Point| {
            point.attributes().get("rust.task.name").unwrap().to_string() == name
        };
        reading.points().iter().find(is_of).unwrap().value().as_u64().unwrap()
    };
    assert!(near(used("leaky") as f64, LEAKED as f64), "{}", used("leaky"));
    assert!(used("busy") < LEAKED / 10, "{}", used("busy"));

    let heap = profile::heap();
    assert!(near(heap.total() as f64, LEAKED as f64), "{}", heap.total());
    let first = &heap.samples()[0];
    let task = |sample: &profile::Sample| sample.labels().find(|(key, _)| *key == "task").unwrap().1.clone();
    assert_eq!(task(first), Label::from("leaky"));
    let folded = heap.to_folded();
    let line = folded.lines().next().unwrap();
    assert!(line.contains("leaking_function"), "{line}");

    // Looking up names takes much memory for a moment, of which no sample is taken.
    let before = profile::allocs();
    let file_with_names = heap.to_pprof();
    let library = profile::allocs().delta(&before);
    let (sampled, exact) = (library.total(), library.exact_total().unwrap());
    println!("{sampled} of {exact} bytes of look-ups are in samples");
    assert!(exact > 1_000_000 && sampled < exact as i64 / 5, "{sampled} of {exact} bytes");

    // Another function has allocated the most.
    assert_eq!(task(&profile::allocs().samples()[0]), Label::from("busy"));

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("heap.pb.gz");
    std::fs::write(&file, file_with_names).unwrap();
    let Ok(output) = Command::new("go").args(["tool", "pprof", "-top"]).arg(&file).output() else {
        return support::skip::skip("there is no Go");
    };
    let top = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(top.contains("Type: inuse_space"), "{top}");
    // Without optimisation the functions of the standard library in between have rows too.
    let row = top.lines().find(|row| row.contains("leaking_function")).expect(&top);
    let share = row.split_whitespace().filter_map(|cell| cell.strip_suffix('%')).next_back().unwrap();
    assert!(share.parse::<f64>().unwrap() > 90.0, "{top}");
    drop(cache);
    assert!(profile::heap().total() < LEAKED as i64 / 10);
}
