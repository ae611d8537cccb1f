//! Counts every call of the global allocator a second time, outside the counting allocator, so that the two can be compared.

#![allow(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};

#[global_allocator]
static ALLOC: Tallied = Tallied(CountingAllocator::system().sampled());

/// The counting allocator, and the tally around it.
struct Tallied(CountingAllocator<System, Sampled>);

/// The numbers that `rust.memory.*` reports, counted by the program itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub allocated: u64,
    pub deallocated: u64,
    pub allocations: u64,
    pub deallocations: u64,
    pub reallocations: u64,
    pub failures: u64,
}

/// A part of the tally in its own cache lines.
#[repr(align(128))]
struct Shard {
    allocated: AtomicU64,
    deallocated: AtomicU64,
    allocations: AtomicU64,
    deallocations: AtomicU64,
    reallocations: AtomicU64,
    failures: AtomicU64,
}

impl Shard {
    const fn new() -> Self {
        Shard {
            allocated: AtomicU64::new(0),
            deallocated: AtomicU64::new(0),
            allocations: AtomicU64::new(0),
            deallocations: AtomicU64::new(0),
            reallocations: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }
}

static SHARDS: [Shard; 16] = [const { Shard::new() }; 16];

/// Returns the shard of the calling thread, by the place of its stack.
fn shard() -> &'static Shard {
    let place = 0_u8;
    &SHARDS[(ptr::from_ref(&place).addr() >> 16) % SHARDS.len()]
}

/// Returns the sums over all threads.
pub fn read() -> Tally {
    SHARDS.iter().fold(Tally::default(), |sum, shard| Tally {
        allocated: sum.allocated + shard.allocated.load(Relaxed),
        deallocated: sum.deallocated + shard.deallocated.load(Relaxed),
        allocations: sum.allocations + shard.allocations.load(Relaxed),
        deallocations: sum.deallocations + shard.deallocations.load(Relaxed),
        reallocations: sum.reallocations + shard.reallocations.load(Relaxed),
        failures: sum.failures + shard.failures.load(Relaxed),
    })
}

fn note_alloc(ptr: *mut u8, size: usize) -> *mut u8 {
    let shard = shard();
    if ptr.is_null() {
        shard.failures.fetch_add(1, Relaxed);
    } else {
        shard.allocated.fetch_add(size as u64, Relaxed);
        shard.allocations.fetch_add(1, Relaxed);
    }
    ptr
}

// SAFETY: every method passes its arguments on and returns the result.
unsafe impl GlobalAlloc for Tallied {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's obligations are the callee's.
        note_alloc(unsafe { self.0.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's obligations are the callee's.
        note_alloc(unsafe { self.0.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's obligations are the callee's.
        unsafe { self.0.dealloc(ptr, layout) };
        let shard = shard();
        shard.deallocated.fetch_add(layout.size() as u64, Relaxed);
        shard.deallocations.fetch_add(1, Relaxed);
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's obligations are the callee's.
        let new = unsafe { self.0.realloc(ptr, layout, new_size) };
        let shard = shard();
        if new.is_null() {
            shard.failures.fetch_add(1, Relaxed);
        } else {
            shard.allocated.fetch_add(new_size as u64, Relaxed);
            shard.deallocated.fetch_add(layout.size() as u64, Relaxed);
            shard.reallocations.fetch_add(1, Relaxed);
        }
        new
    }
}
