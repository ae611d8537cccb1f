//! The heap profile estimates without bias. The test compares the estimates with its own sums, over three inner allocators,
//! for blocks of one size, mixes, a few huge blocks among many small ones, large blocks and growing vectors.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test says what it expects by panicking")]
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "calls allocators with layouts in plain sight"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::thread;

use mimalloc::MiMalloc;
use opentelemetry_instrumentation_runtime::profile::{self, Error, HeapProfile};
use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};
use support::random::Random;
use tikv_jemallocator::Jemalloc;

#[path = "support/heap.rs"]
mod heap;

use heap::sums;

#[global_allocator]
static GLOBAL: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();
static ON_JEMALLOC: CountingAllocator<Jemalloc, Sampled> = CountingAllocator::new(Jemalloc).sampled();
static ON_MIMALLOC: CountingAllocator<MiMalloc, Sampled> = CountingAllocator::new(MiMalloc).sampled();

const MEAN: u64 = 8 * 1024;

/// The sum of the allocated sizes, and the variance of its estimate.
#[derive(Clone, Copy, Default)]
struct Expected {
    objects: f64,
    bytes: f64,
    objects_variance: f64,
    bytes_variance: f64,
}

impl Expected {
    /// Adds a block. A reallocation covers its new size, an allocation half a byte less.
    fn add(&mut self, size: usize, is_realloc: bool) {
        let covered = size as f64 - if is_realloc { 0.0 } else { 0.5 };
        let p = 1.0 - (-covered / MEAN as f64).exp();
        self.objects += 1.0;
        self.bytes += size as f64;
        self.objects_variance += (1.0 - p) / p;
        self.bytes_variance += (size as f64).powi(2) * (1.0 - p) / p;
    }

    fn assert_near(&self, objects: i64, bytes: i64, what: &str) -> Result<(), String> {
        let near = |estimate: i64, exact: f64, variance: f64| {
            // A thread notices a profile only after some allocations.
            (estimate as f64 - exact).abs() <= 4.0 * variance.sqrt() + 1.0
        };
        if near(objects, self.objects, self.objects_variance) && near(bytes, self.bytes, self.bytes_variance)
        {
            return Ok(());
        }
        Err(format!(
            "{what}: {objects} objects and {bytes} bytes, not {} ± {:.0} and {} ± {:.0}",
            self.objects,
            self.objects_variance.sqrt(),
            self.bytes,
            self.bytes_variance.sqrt()
        ))
    }
}

type Blocks = Vec<(usize, Layout)>;

/// Runs on a new thread, whose name labels the samples.
fn on_thread<R: Send>(name: &str, run: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, run).unwrap().join().unwrap()
    })
}

fn check(
    allocator: &'static (impl GlobalAlloc + Sync),
    name: &str,
    sizes: &(dyn Fn(&mut Random) -> usize + Sync),
    count: usize,
) -> Result<(), String> {
    let mut blocks: Blocks = Vec::with_capacity(count);
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    let mut all = Expected::default();
    on_thread(name, || {
        for _ in 0..count {
            let layout = Layout::from_size_align(sizes(&mut random), 8).unwrap();
            let ptr = unsafe { allocator.alloc(layout) };
            assert!(!ptr.is_null());
            blocks.push((ptr.addr(), layout));
            all.add(layout.size(), false);
        }
    });
    let before = profile::heap();
    let [objects, bytes, in_use_objects, in_use_bytes] = sums(&before, name);
    assert_eq!((objects, bytes), (in_use_objects, in_use_bytes), "nothing is freed yet");
    let result = all.assert_near(objects, bytes, &format!("{name} allocated"));

    // Frees half of them here, on another thread than the one that allocated them.
    let mut kept = Expected::default();
    let mut index = 0;
    blocks.retain(|(ptr, layout)| {
        index += 1;
        if index % 2 == 0 {
            kept.add(layout.size(), false);
            return true;
        }
        unsafe { allocator.dealloc(*ptr as *mut u8, *layout) };
        false
    });
    let [_, _, objects, bytes] = sums(&profile::heap(), name);
    let result = result.and(kept.assert_near(objects, bytes, &format!("{name} in use")));

    for (ptr, layout) in blocks {
        unsafe { allocator.dealloc(ptr as *mut u8, layout) };
    }
    let after = profile::heap();
    assert_eq!(sums(&after, name)[2..], [0, 0], "everything is freed");
    assert_eq!(sums(&after, name)[..2], sums(&before, name)[..2], "what was allocated stays");
    let [objects, bytes, ..] = sums(&after.delta(&before), name);
    assert_eq!([objects, bytes], [0, 0]);
    result
}

/// Growing vectors: each step ends one block and begins another.
fn check_growing(allocator: &'static (impl GlobalAlloc + Sync), name: &str) -> Result<(), String> {
    let (mut all, mut kept) = (Expected::default(), Expected::default());
    let mut blocks: Blocks = Vec::with_capacity(1000);
    on_thread(name, || {
        for _ in 0..1000 {
            let mut layout = Layout::from_size_align(16, 8).unwrap();
            let mut ptr = unsafe { allocator.alloc(layout) };
            all.add(16, false);
            while layout.size() < 100_000 {
                let size = layout.size() * 2;
                ptr = unsafe { allocator.realloc(ptr, layout, size) };
                assert!(!ptr.is_null());
                layout = Layout::from_size_align(size, 8).unwrap();
                all.add(size, true);
            }
            kept.add(layout.size(), true);
            blocks.push((ptr.addr(), layout));
        }
    });
    let [objects, bytes, in_use_objects, in_use_bytes] = sums(&profile::heap(), name);
    let result = all.assert_near(objects, bytes, &format!("{name} allocated"));
    let result = result.and(kept.assert_near(in_use_objects, in_use_bytes, &format!("{name} in use")));
    for (ptr, layout) in blocks {
        unsafe { allocator.dealloc(ptr as *mut u8, layout) };
    }
    assert_eq!(sums(&profile::heap(), name)[2..], [0, 0], "everything is freed");
    result
}

/// Chance exceeds four standard errors once in 16 000 times. Such a result is measured again.
fn twice(check: impl Fn(u32) -> Result<(), String>) {
    if let Err(first) = check(1)
        && let Err(second) = check(2)
    {
        panic!("{first}; {second}");
    }
}

fn check_all(allocator: &'static (impl GlobalAlloc + Sync), over: &str) {
    type Sizes = (&'static str, usize, Box<dyn Fn(&mut Random) -> usize + Sync>);
    let workloads: [Sizes; 6] = [
        ("64", 150_000, Box::new(|_| 64)),
        ("1024", 20_000, Box::new(|_| 1024)),
        ("mix", 50_000, Box::new(|random| 1 << (random.number() % 12))),
        ("odd", 30_000, Box::new(|random| 1 + (random.number() % 2000) as usize)),
        ("pareto", 50_000, Box::new(|random| (32.0 * random.uniform().powf(-0.7)).min(4e6) as usize)),
        ("large", 300, Box::new(|random| 20_000 + (random.number() % 100_000) as usize)),
    ];
    for (name, count, sizes) in workloads {
        twice(|round| check(allocator, &format!("{over} {name} {round}"), &*sizes, count));
    }
    twice(|round| check_growing(allocator, &format!("{over} grow {round}")));
}

#[test]
fn estimates_are_right_to_four_standard_errors() {
    assert_eq!(profile::heap().error(), Some(&Error::NotRunning));
    assert_eq!(HeapProfile::start(0).unwrap_err(), Error::InvalidMean);
    let heap_profile = HeapProfile::start(MEAN).unwrap();
    assert_eq!(HeapProfile::start(1).unwrap_err(), Error::AlreadyRunning);
    check_all(&GLOBAL, "sys");
    check_all(&ON_JEMALLOC, "je");
    check_all(&ON_MIMALLOC, "mi");

    // Compares a site that holds nearly all memory with the exact counters of the process.
    let held = std::hint::black_box(vec![vec![1_u8; 1000]; 30_000]);
    let heap = profile::heap();
    let exact = heap.exact_total().unwrap() as f64;
    let error = heap.standard_error().unwrap();
    assert!(exact >= 30e6 && error > 0.0 && error < 0.05 * exact, "{exact} ± {error}");
    // The profile does not contain earlier allocations.
    let difference = exact - heap.total() as f64;
    assert!(difference.abs() <= 5.0 * error + 1e6, "{exact} exactly, {} ± {error}", heap.total());
    drop(held);

    // A stopped profile takes no samples, and a new start has its own mean.
    heap_profile.stop();
    drop(std::hint::black_box(vec![0_u8; 100_000]));
    let stopped = profile::allocs();
    on_thread("stopped", || drop(std::hint::black_box(vec![vec![0_u8; 1000]; 1000])));
    assert_eq!(sums(&profile::allocs(), "stopped"), [0; 4]);
    assert_eq!(stopped.comments().count(), 1);
    let again = HeapProfile::start(1).unwrap();
    assert_eq!(again.mean(), 1);
    on_thread("again", || drop(std::hint::black_box(vec![vec![0_u8; 1000]; 1000])));
    let [objects, bytes, in_use_objects, _] = sums(&profile::allocs(), "again");
    assert_eq!(in_use_objects, 0);
    assert!((980..=1010).contains(&objects) && bytes >= 980 * 1000, "{objects} objects and {bytes} bytes");
    again.stop();
}
