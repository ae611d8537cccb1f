//! Threads allocate, grow, zero, over-align, pass on and free blocks while nearly all of them are sampled, over three inner
//! allocators. The test checks every byte.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test says what it expects by panicking")]
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "calls allocators with layouts in plain sight"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::sync::Mutex;
use std::thread;

#[cfg(feature = "inner-allocators")]
use mimalloc::MiMalloc;
use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile, Label};
use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};
#[cfg(feature = "inner-allocators")]
use tikv_jemallocator::Jemalloc;

#[path = "../support/random.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod random;

use random::Random;

#[global_allocator]
static GLOBAL: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();
#[cfg(feature = "inner-allocators")]
static ON_JEMALLOC: CountingAllocator<Jemalloc, Sampled> = CountingAllocator::new(Jemalloc).sampled();
#[cfg(feature = "inner-allocators")]
static ON_MIMALLOC: CountingAllocator<MiMalloc, Sampled> = CountingAllocator::new(MiMalloc).sampled();

fn size(random: &mut Random) -> usize {
    // Mostly small blocks, some around 32 KiB, where sampling changes, and some large ones.
    (match random.below(10) {
        0..6 => 1 + random.below(300),
        6 | 7 => 1 + random.below(9_000),
        8 => 32_760 + random.below(16),
        _ => 1 + random.below(150_000),
    }) as usize
}

fn layout(random: &mut Random) -> Layout {
    let align = [1, 1, 8, 8, 8, 16, 32, 64, 512, 2048, 4096, 4096, 8192, 65_536][random.below(14) as usize];
    Layout::from_size_align(size(random), align).unwrap()
}

/// A block with bytes that its seed determines.
struct Block {
    allocator: &'static (dyn GlobalAlloc + Sync),
    ptr: usize,
    layout: Layout,
    seed: u8,
}

impl Block {
    fn bytes(&self) -> &[u8] {
        unsafe { std::slice::from_raw_parts(self.ptr as *const u8, self.layout.size()) }
    }

    fn byte(&self, index: usize) -> u8 {
        self.seed.wrapping_add(index as u8).wrapping_add((index >> 8) as u8)
    }

    fn fill_from(&self, start: usize) {
        for index in start..self.layout.size() {
            unsafe { (self.ptr as *mut u8).add(index).write(self.byte(index)) };
        }
    }

    fn check(&self) {
        assert_eq!(self.ptr % self.layout.align(), 0, "{:?}", self.layout);
        for (index, byte) in self.bytes().iter().enumerate() {
            assert_eq!(*byte, self.byte(index), "at {index} of {:?}", self.layout);
        }
    }

    fn new(allocator: &'static (dyn GlobalAlloc + Sync), random: &mut Random) -> Block {
        let layout = layout(random);
        let zeroed = random.below(3) == 0;
        let ptr = unsafe { if zeroed { allocator.alloc_zeroed(layout) } else { allocator.alloc(layout) } };
        assert!(!ptr.is_null());
        let block = Block { allocator, ptr: ptr.addr(), layout, seed: random.below(256) as u8 };
        if zeroed {
            assert!(block.bytes().iter().all(|byte| *byte == 0), "{layout:?}");
        }
        block.fill_from(0);
        block
    }

    fn resize(&mut self, random: &mut Random) {
        let size = size(random);
        let ptr = unsafe { self.allocator.realloc(self.ptr as *mut u8, self.layout, size) };
        assert!(!ptr.is_null());
        let kept = self.layout.size().min(size);
        self.ptr = ptr.addr();
        self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        self.fill_from(kept);
        self.check();
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.check();
        unsafe { self.allocator.dealloc(self.ptr as *mut u8, self.layout) };
    }
}

thread_local! {
    /// Freed by the destructor of a thread-local, which may run after the allocator's destructor.
    static LAST: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

fn stress(allocator: &'static (dyn GlobalAlloc + Sync), name: &str, rounds: usize) {
    let shared: &Mutex<Vec<Block>> = &Mutex::new(Vec::new());
    thread::scope(|scope| {
        let spawn = |thread: u64| {
            let work = move || {
                let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (thread + 1).wrapping_mul(0x1234_5678_9ABC));
                LAST.with_borrow_mut(|last| last.push(Block::new(allocator, &mut random)));
                let mut own: Vec<Block> = Vec::new();
                for _ in 0..rounds {
                    let index = random.below(own.len().max(1) as u64) as usize;
                    match random.below(8) {
                        0..3 => own.push(Block::new(allocator, &mut random)),
                        3 if !own.is_empty() => own[index].resize(&mut random),
                        // Another thread frees it.
                        4 if !own.is_empty() => shared.lock().unwrap().push(own.swap_remove(index)),
                        5 => {
                            let taken = shared.lock().unwrap().pop();
                            own.extend(taken);
                        }
                        _ if own.len() > 50 => drop(own.swap_remove(index)),
                        _ => (),
                    }
                }
            };
            thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work).unwrap()
        };
        let threads: Vec<_> = (0..4).map(spawn).collect();
        // Joined, since a scope does not wait for the destructors of thread-locals.
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    drop(std::mem::take(&mut *shared.lock().unwrap()));
    let heap = profile::heap();
    let of_these = |sample: &&profile::Sample| {
        sample.labels().any(|(key, label)| key == "thread" && *label == Label::from(name.to_owned()))
    };
    let samples: Vec<_> = heap.samples().iter().filter(of_these).collect();
    let allocated: i64 = samples.iter().map(|sample| sample.values()[0]).sum();
    assert!(allocated > rounds as i64, "{allocated} objects of {name}");
    let with_stack = samples.iter().filter(|sample| sample.stack().len() > 3).count();
    assert!(with_stack * 10 > samples.len() * 9, "{with_stack} of {}", samples.len());
    for sample in samples {
        assert_eq!(sample.values()[2..], [0, 0], "{name} has freed everything: {sample:?}");
    }
}

#[test]
fn no_byte_is_lost_or_changed() {
    let heap_profile = HeapProfile::start(100).unwrap();
    stress(&GLOBAL, "on system", 6_000);
    #[cfg(feature = "inner-allocators")]
    {
        stress(&ON_JEMALLOC, "on jemalloc", 6_000);
        stress(&ON_MIMALLOC, "on mimalloc", 6_000);
    }
    // Meanwhile the profile stops, starts and changes its mean.
    let running = &std::sync::atomic::AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut heap_profile = heap_profile;
            while running.load(std::sync::atomic::Ordering::Relaxed) {
                heap_profile.restart(10_000).unwrap();
                heap_profile.stop();
                thread::yield_now();
                heap_profile = HeapProfile::start(50).unwrap();
                drop(profile::heap());
                thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        stress(&GLOBAL, "restarted", 6_000);
        running.store(false, std::sync::atomic::Ordering::Relaxed);
    });
}
