//! `measure` counts the allocations of a closure on its thread.

use std::hint::black_box;
use std::thread;

use opentelemetry_instrumentation_runtime::{AllocationStats, CountingAllocator, measure};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

fn numbers(stats: AllocationStats) -> [u64; 5] {
    [stats.allocations, stats.deallocations, stats.reallocations, stats.allocated, stats.deallocated]
}

#[test]
fn an_empty_closure_allocates_nothing() {
    let ((), stats) = measure(|| {});
    assert_eq!(stats, AllocationStats::default());
}

#[test]
fn a_growing_vector_reallocates() {
    let (_, stats) = measure(|| {
        let mut bytes = Vec::with_capacity(10);
        bytes.extend_from_slice(&[0_u8; 10]);
        bytes.reserve_exact(90);
        black_box(bytes)
    });
    assert_eq!(numbers(stats), [1, 0, 1, 110, 10]);
}

#[test]
fn the_outer_call_includes_nested_ones() {
    let ((_, inner), outer) = measure(|| {
        drop(black_box(Box::new([0_u8; 7])));
        measure(|| drop(black_box(Box::new([0_u8; 5]))))
    });
    assert_eq!(numbers(inner), [1, 1, 0, 5, 5]);
    assert_eq!(numbers(outer), [2, 2, 0, 12, 12]);
}

#[test]
fn only_the_calling_thread_counts() {
    let work = || drop(black_box(vec![0_u8; 1_000_000]));
    thread::scope(|scope| {
        // The other thread allocates while this one only waits.
        let (start, started) = std::sync::mpsc::sync_channel::<()>(0);
        let (end, ended) = std::sync::mpsc::sync_channel::<()>(0);
        scope.spawn(move || {
            started.recv().unwrap();
            work();
            end.send(()).unwrap();
        });
        let ((), stats) = measure(|| {
            start.send(()).unwrap();
            ended.recv().unwrap();
        });
        assert!(stats.allocated < 1_000_000, "{stats:?}");
    });
    assert_eq!(measure(work).1.allocated, 1_000_000);
}

#[test]
fn a_thread_that_continues_in_another_slot_measures_only_itself() {
    for _ in 0..10 {
        let stats = thread::spawn(|| measure(|| drop(black_box(Box::new(0_u64)))).1).join().unwrap();
        assert_eq!(numbers(stats), [1, 1, 0, 8, 8]);
    }
}

#[test]
fn async_code_is_measured_where_it_runs() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read = || async {
        tokio::task::yield_now().await;
        black_box(vec![0_u8; 4_321]).len()
    };
    // Once before, so that the runtime has made its own first allocations.
    runtime.block_on(read());
    let (_, without) = measure(|| runtime.block_on(tokio::task::yield_now()));
    let (length, with) = measure(|| runtime.block_on(read()));
    assert_eq!(length, 4_321);
    assert_eq!((with.allocated - without.allocated, with.allocations - without.allocations), (4_321, 1));
}
