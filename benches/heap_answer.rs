//! Measures the cost of an answer with a heap profile of ten thousand stacks: CPU time, memory at its peak, and memory that
//! stays.
//!
//! `cargo bench -p benches --bench heap_answer`. It fails if `/debug/pprof/heap` takes more than 300 ms or 32 MB, or if memory
//! stays.

use std::alloc::System;
use std::hint::black_box;
use std::time::Duration;

use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile};
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, Sampled};

#[global_allocator]
static ALLOCATOR: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

const STACKS: usize = 10_000;
const MAX_TIME: Duration = Duration::from_millis(300);
const MAX_MEMORY: u64 = 32_000_000;

/// The name of an answer, its length, and the most time that it may take.
type Answer = (&'static str, fn() -> usize, Option<Duration>);

/// Two functions that call each other in the order of the bits of a number, so that each number has its own stack.
#[inline(never)]
fn zero(bits: usize, depth: u32) -> Vec<u8> {
    black_box(descend(bits, depth))
}

#[inline(never)]
fn one(bits: usize, depth: u32) -> Vec<u8> {
    black_box(descend(bits, depth))
}

#[inline(always)]
fn descend(bits: usize, depth: u32) -> Vec<u8> {
    match (depth, bits & 1) {
        (0, _) => vec![1; 4096],
        (_, 0) => zero(bits >> 1, depth - 1),
        _ => one(bits >> 1, depth - 1),
    }
}

/// Returns the CPU time of this thread, which other programs do not lengthen.
fn used_time() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel keeps it");
    let nanos = times.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number");
    Duration::from_nanos(nanos)
}

fn main() {
    if !cfg!(target_os = "linux") {
        println!("skipped: heap profiles need Linux");
        return;
    }
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("bench"));
    let read =
        |name| metrics.read(name).and_then(|reading| reading.value()?.as_u64()).expect("it is counted");
    // Blocks much larger than the mean are samples nearly always.
    HeapProfile::start(256).expect("a heap profile");
    let kept: Vec<_> = (0..STACKS).map(|number| zero(number, 14)).collect();
    HeapProfile::running().expect("it runs").stop();

    println!("{:<44} {:>8} {:>10} {:>10} {:>10}", "answer", "ms", "peak, kB", "left, kB", "bytes, kB");
    let mut failed = false;
    let answers: [Answer; 4] = [
        ("the samples alone", || profile::heap().samples().len(), None),
        ("pprof with addresses", || profile::heap().to_pprof_without_symbols().len(), None),
        ("pprof with names: /debug/pprof/heap", || profile::heap().to_pprof().len(), Some(MAX_TIME)),
        ("a flame graph", || profile::heap().to_flame_graph().len(), None),
    ];
    let stacks = profile::heap().samples().len();
    for (name, answer, max_time) in answers {
        let mut times = Vec::new();
        let (mut peak, mut left) = (0, 0);
        let mut length = 0;
        for _ in 0..5 {
            // The peak since the start is raised to the present use, so that it shows what the answer adds.
            let used = read("rust.memory.used");
            let ballast = read("rust.memory.peak").saturating_sub(used);
            let ballast = vec![1_u8; usize::try_from(ballast).unwrap_or_default()];
            let before = read("rust.memory.used");
            let start = used_time();
            length = answer();
            times.push(used_time() - start);
            peak = read("rust.memory.peak").saturating_sub(before).max(peak);
            left = read("rust.memory.used").saturating_sub(before).max(left);
            drop(black_box(ballast));
        }
        times.sort_unstable();
        let time = times[times.len() / 2];
        let kilobytes = |bytes: u64| bytes as f64 / 1e3;
        println!(
            "{name:<44} {:>8.1} {:>10.0} {:>10.0} {:>10.0}",
            time.as_secs_f64() * 1e3,
            kilobytes(peak),
            kilobytes(left),
            kilobytes(length as u64)
        );
        failed |= max_time.is_some_and(|max_time| time > max_time) || peak > MAX_MEMORY || left > 100_000;
    }
    println!("{stacks} stacks");
    assert!(stacks >= STACKS, "each number has its own stack");
    assert!(!failed, "a limit is exceeded");
    drop(kept);
}
