//! Threads free each other's memory; an allocator that counts under a lock checks the counts. They are those of the whole
//! process, hence one test function.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, Snapshot};
use opentelemetry_sdk::metrics::SdkMeterProvider;

/// Counts under a lock.
struct Oracle;

static COUNTS: Mutex<Counts> = Mutex::new(Counts {
    allocated: 0,
    deallocated: 0,
    allocations: 0,
    deallocations: 0,
    reallocations: 0,
    peak: 0,
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    allocated: u64,
    deallocated: u64,
    allocations: u64,
    deallocations: u64,
    reallocations: u64,
    peak: u64,
}

impl Oracle {
    fn count(&self, ptr: *mut u8, count: impl FnOnce(&mut Counts)) -> *mut u8 {
        if !ptr.is_null() {
            let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
            count(&mut counts);
            counts.peak = counts.peak.max(counts.allocated - counts.deallocated);
        }
        ptr
    }

    fn alloc(&self, ptr: *mut u8, layout: Layout) -> *mut u8 {
        self.count(ptr, |counts| {
            counts.allocated += layout.size() as u64;
            counts.allocations += 1;
        })
    }
}

unsafe impl GlobalAlloc for Oracle {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.alloc(unsafe { System.alloc(layout) }, layout)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.alloc(unsafe { System.alloc_zeroed(layout) }, layout)
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        self.count(ptr, |counts| {
            counts.deallocated += layout.size() as u64;
            counts.deallocations += 1;
        });
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.count(unsafe { System.realloc(ptr, layout, new_size) }, |counts| {
            counts.allocated += new_size as u64;
            counts.deallocated += layout.size() as u64;
            counts.reallocations += 1;
        })
    }
}

#[global_allocator]
static ALLOC: CountingAllocator<Oracle> = CountingAllocator::new(Oracle);

fn value(snapshot: &Snapshot, name: &str) -> u64 {
    snapshot.get(name).unwrap().value().unwrap().as_u64().unwrap()
}

fn counts(snapshot: &Snapshot) -> Counts {
    let value = |name| value(snapshot, name);
    Counts {
        allocated: value("rust.memory.allocated"),
        deallocated: value("rust.memory.deallocated"),
        allocations: value("rust.memory.allocations"),
        deallocations: value("rust.memory.deallocations"),
        reallocations: value("rust.memory.reallocations"),
        peak: value("rust.memory.peak"),
    }
}

fn assert_laws(snapshot: &Snapshot) {
    let now = counts(snapshot);
    assert!(now.deallocated <= now.allocated, "{now:?}");
    assert!(now.deallocations <= now.allocations, "{now:?}");
    assert_eq!(value(snapshot, "rust.memory.used"), now.allocated - now.deallocated);
    assert_eq!(value(snapshot, "rust.memory.allocation.count"), now.allocations - now.deallocations);
    assert!(now.peak >= now.allocated - now.deallocated, "{now:?}");
}

/// Returns a snapshot, and its difference to the counts under the lock just before. The snapshot itself allocates a constant
/// amount before it reads the totals.
fn apart_from_the_lock(metrics: &RuntimeMetrics) -> (Counts, [u64; 5]) {
    let lock = *COUNTS.lock().unwrap();
    let counted = counts(&metrics.snapshot());
    let apart = [
        counted.allocated - lock.allocated,
        counted.deallocated - lock.deallocated,
        counted.allocations - lock.allocations,
        counted.deallocations - lock.deallocations,
        counted.reallocations - lock.reallocations,
    ];
    (counted, apart)
}

#[test]
fn counts_equal_those_under_a_lock() {
    const PAIRS: usize = 3;
    const ROUNDS: usize = 20_000;
    let provider = SdkMeterProvider::default();
    let metrics = RuntimeMetrics::builder().build(&provider.meter("test"));
    drop(metrics.snapshot());
    let (_, before) = apart_from_the_lock(&metrics);

    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for pair in 0..PAIRS {
            let (give, take) = sync_channel::<Vec<u8>>(64);
            workers.push(scope.spawn(move || {
                for round in 0..ROUNDS {
                    // From a byte to a few hundred thousand, some zeroed and some grown.
                    let size = 1 << (round.wrapping_mul(7 + pair) % 19);
                    let mut bytes = if round % 3 == 0 { vec![0; size] } else { Vec::with_capacity(size) };
                    if round % 5 == 0 {
                        bytes.reserve_exact(size * 2);
                    }
                    give.send(bytes).unwrap();
                }
            }));
            workers.push(scope.spawn(move || take.iter().for_each(drop)));
        }
        let reader = scope.spawn(|| {
            let mut snapshots = 0;
            let mut before = counts(&metrics.snapshot());
            while running.load(Ordering::Relaxed) || snapshots < 100 {
                let snapshot = metrics.snapshot();
                assert_laws(&snapshot);
                let now = counts(&snapshot);
                assert!(now.allocated >= before.allocated && now.deallocated >= before.deallocated);
                assert!(now.peak >= before.peak);
                before = now;
                snapshots += 1;
            }
            snapshots
        });
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        running.store(false, Ordering::Relaxed);
        reader.join().unwrap();
    });

    // No other thread allocates now.
    let (counted, apart) = apart_from_the_lock(&metrics);
    assert_eq!(apart, before);
    assert!(counted.allocations >= (PAIRS * ROUNDS) as u64);

    // 64 KiB each for the main thread, the test's thread, the reader and the workers, and the allocations in progress, which
    // the lock counts earlier than the slots.
    let bound = (3 + 2 * PAIRS as u64) * 65_536 + PAIRS as u64 * 3 * (1 << 19);
    let off = counted.peak.abs_diff(COUNTS.lock().unwrap().peak);
    assert!(off <= bound, "the peak is {off} bytes off, at most {bound} expected");
}
