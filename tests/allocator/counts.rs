//! Exact counts in a snapshot. They are those of the whole process, hence one test function.

use std::alloc::{GlobalAlloc, Layout, System, alloc, alloc_zeroed, dealloc, realloc};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics};
use opentelemetry_sdk::metrics::SdkMeterProvider;

/// Returns null while `FAIL` is set. Uses the global allocator itself in the next reallocation if `NEST` is set.
struct Capricious;

static FAIL: AtomicBool = AtomicBool::new(false);
static NEST: AtomicBool = AtomicBool::new(false);

// SAFETY: null, or what `System` gives.
unsafe impl GlobalAlloc for Capricious {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if FAIL.load(Ordering::Relaxed) { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if FAIL.load(Ordering::Relaxed) {
            std::ptr::null_mut()
        } else {
            unsafe { System.alloc_zeroed(layout) }
        }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if NEST.swap(false, Ordering::Relaxed) {
            let fail = FAIL.swap(false, Ordering::Relaxed);
            let mut bytes = Vec::<u8>::with_capacity(black_box(10));
            bytes.reserve_exact(20);
            bytes.reserve_exact(200_000);
            drop(bytes);
            FAIL.store(fail, Ordering::Relaxed);
        }
        if FAIL.load(Ordering::Relaxed) {
            std::ptr::null_mut()
        } else {
            unsafe { System.realloc(ptr, layout, new_size) }
        }
    }
}

#[global_allocator]
static ALLOC: CountingAllocator<Capricious> = CountingAllocator::new(Capricious);

const NAMES: [&str; 8] = [
    "rust.memory.allocated",
    "rust.memory.deallocated",
    "rust.memory.allocations",
    "rust.memory.deallocations",
    "rust.memory.reallocations",
    "rust.memory.allocation.failures",
    "rust.memory.used",
    "rust.memory.allocation.count",
];

/// Returns how much each counter rose, less the cost of a snapshot.
fn change(metrics: &RuntimeMetrics, act: impl FnOnce()) -> [i64; 8] {
    let read = || {
        let snapshot = metrics.snapshot();
        NAMES.map(|name| snapshot.get(name).unwrap().value().unwrap().as_u64().unwrap() as i64)
    };
    let first = read();
    let second = read();
    act();
    let third = read();
    std::array::from_fn(|i| third[i] - second[i] - (second[i] - first[i]))
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

#[test]
fn every_call_is_counted_once_and_to_the_byte() {
    let provider = SdkMeterProvider::default();
    let metrics = RuntimeMetrics::builder().build(&provider.meter("test"));
    // The first snapshot allocates what the others reuse.
    drop(metrics.snapshot());

    let small = layout(100, 8);
    assert_eq!(
        change(&metrics, || unsafe { dealloc(black_box(alloc(small)), small) }),
        [100, 100, 1, 1, 0, 0, 0, 0]
    );
    assert_eq!(
        change(&metrics, || unsafe { dealloc(black_box(alloc_zeroed(small)), small) }),
        [100, 100, 1, 1, 0, 0, 0, 0]
    );

    // Alignments that the inner allocator treats separately, and sizes that use up the thread's grant.
    for layout in [layout(100, 4096), layout(1 << 20, 8), layout(5 << 20, 64), layout(1, 1), layout(1, 64)] {
        let size = layout.size() as i64;
        assert_eq!(
            change(&metrics, || unsafe { dealloc(black_box(alloc(layout)), layout) }),
            [size, size, 1, 1, 0, 0, 0, 0]
        );
    }

    // A reallocation is neither an allocation nor a deallocation.
    let mut kept = std::ptr::null_mut();
    assert_eq!(
        change(&metrics, || unsafe { kept = realloc(alloc(small), small, 1_000_000) }),
        [1_000_100, 100, 1, 0, 1, 0, 1_000_000, 1]
    );
    assert_eq!(
        change(&metrics, || unsafe { kept = realloc(kept, layout(1_000_000, 8), 10) }),
        [10, 1_000_000, 0, 0, 1, 0, -999_990, 0]
    );

    // A failure changes no other counter, with and without a grant for its size.
    let large = layout(32 << 20, 8);
    assert_eq!(
        change(&metrics, || {
            FAIL.store(true, Ordering::Relaxed);
            let kept = |size| unsafe { realloc(kept, layout(10, 8), size) };
            let given = unsafe {
                [alloc(small), alloc_zeroed(small), kept(20), kept(1), alloc(large), kept(large.size())]
            };
            FAIL.store(false, Ordering::Relaxed);
            assert!(given.iter().all(|ptr| ptr.is_null()));
        }),
        [0, 0, 0, 0, 0, 6, 0, 0]
    );
    let size = large.size() as i64;
    assert_eq!(
        change(&metrics, || unsafe { dealloc(black_box(alloc(large)), large) }),
        [size, size, 1, 1, 0, 0, 0, 0]
    );

    // A failed request for so much that twice its size is no signed number leaves the size classes alone too.
    let by_size = RuntimeMetrics::builder().size_classes(true).build(&provider.meter("by size"));
    let classes = || {
        let snapshot = by_size.snapshot();
        let points = snapshot.get("rust.memory.allocations").unwrap().points().iter();
        points.map(|point| point.value().as_u64().unwrap() as i64).collect::<Vec<_>>()
    };
    let (first, second) = (classes(), classes());
    const MOST: usize = isize::MAX as usize;
    for size in [MOST - 7, MOST / 2 + 4, MOST / 4 * 3] {
        let fail = || {
            FAIL.store(true, Ordering::Relaxed);
            let ptr = unsafe { alloc(layout(size, 8)) };
            FAIL.store(false, Ordering::Relaxed);
            assert!(ptr.is_null());
        };
        assert_eq!(change(&metrics, fail), [0, 0, 0, 0, 0, 1, 0, 0], "{size}");
    }
    let third = classes();
    let more =
        |before: &[i64], after: &[i64]| after.iter().zip(before).map(|(a, b)| a - b).collect::<Vec<_>>();
    let (idle, busy) = (more(&first, &second), more(&second, &third));
    assert_eq!(idle.len(), 11);
    assert_eq!(busy.last(), Some(&0), "{busy:?}");
    assert!(busy.iter().all(|count| (0..1_000).contains(count)), "{busy:?}");

    // An inner allocator that allocates during a reallocation: with a grant, without one, and when it fails.
    let grown = |size: usize, fails| {
        change(&metrics, || unsafe {
            let ptr = alloc(small);
            FAIL.store(fails, Ordering::Relaxed);
            NEST.store(true, Ordering::Relaxed);
            let other = realloc(ptr, small, size);
            FAIL.store(false, Ordering::Relaxed);
            if other.is_null() { dealloc(ptr, small) } else { dealloc(other, layout(size, 8)) }
        })
    };
    for size in [200, 300_000] {
        let without = 100 + 10 + 20 + 200_000;
        let all = without + size as i64;
        assert_eq!(grown(size, false), [all, all, 2, 2, 3, 0, 0, 0]);
        assert_eq!(grown(size, true), [without, without, 2, 2, 2, 1, 0, 0]);
    }

    // Another thread frees the memory. The cost of the thread itself is counted beforehand.
    let thread = |kept: usize, size: usize| {
        change(&metrics, move || {
            let free = move || {
                if size > 0 {
                    unsafe { dealloc(kept as *mut u8, layout(size, 8)) }
                }
            };
            thread::Builder::new().name("other".into()).spawn(free).unwrap().join().unwrap();
        })
    };
    thread(0, 0);
    let nothing = thread(0, 0);
    let something = thread(kept as usize, 10);
    let difference: [i64; 8] = std::array::from_fn(|i| something[i] - nothing[i]);
    assert_eq!(difference, [0, 10, 0, 1, 0, 0, -10, -1]);
}
