//! A program without Tokio that reports its memory. CI also builds it with `panic = "abort"`.

use std::hint::black_box;

use opentelemetry::global;
use opentelemetry_instrumentation_runtime::{CountingAllocator, init_runtime_metrics};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

fn main() {
    let metrics = init_runtime_metrics(&global::meter("plain"));
    let before = metrics.snapshot();
    std::thread::spawn(|| drop(black_box(vec![0_u8; 1_000_000]))).join().ok();
    let after = metrics.snapshot();
    let allocated = |snapshot: &opentelemetry_instrumentation_runtime::Snapshot| {
        snapshot.get("rust.memory.allocated").and_then(|reading| reading.value()?.as_u64())
    };
    match (allocated(&before), allocated(&after)) {
        (Some(before), Some(after)) if after >= before + 1_000_000 => println!("counted"),
        seen => {
            eprintln!("not counted: {seen:?}");
            std::process::exit(1);
        }
    }
}
