//! An inner allocator that refuses: the heap profile counts a block neither twice nor as freed.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test says what it expects by panicking")]
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "calls allocators with layouts in plain sight"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::thread;

use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile};
use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};

#[path = "../support/heap.rs"]
mod heap;

use heap::sums;

thread_local! {
    static REFUSES: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, which refuses all requests of a thread while the thread wants that.
struct Refusing;

fn unless_refused(call: impl FnOnce() -> *mut u8) -> *mut u8 {
    if REFUSES.get() { std::ptr::null_mut() } else { call() }
}

unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unless_refused(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unless_refused(|| unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        unless_refused(|| unsafe { System.realloc(ptr, layout, new_size) })
    }
}

#[global_allocator]
static ALLOC: CountingAllocator<Refusing, Sampled> = CountingAllocator::new(Refusing).sampled();

fn refuse<R>(call: impl FnOnce() -> R) -> R {
    REFUSES.set(true);
    let result = call();
    REFUSES.set(false);
    result
}

#[test]
fn a_failed_call_changes_no_sum() {
    // Each of these blocks is a sample.
    let heap_profile = HeapProfile::start(1).unwrap();
    let cases = [
        // Promoted, so that a reallocation copies.
        (200, 8),
        // Tagged by the program itself, so that a reallocation asks the inner allocator for one.
        (200, 4096),
        // Large, hence not promoted.
        (100_000, 8),
        (100_000, 4096),
    ];
    for (case, (size, align)) in cases.into_iter().enumerate() {
        let name = &format!("case {case}");
        let layout = Layout::from_size_align(size, align).unwrap();
        // On a thread whose name labels the sample. Its first allocation notices the profile.
        let allocate = || unsafe {
            ALLOC.dealloc(ALLOC.alloc(layout), layout);
            let ptr = ALLOC.alloc(layout);
            ptr.write_bytes(7, size);
            ptr.expose_provenance()
        };
        let ptr = std::ptr::with_exposed_provenance_mut::<u8>(thread::scope(|scope| {
            let thread = thread::Builder::new().name(name.clone());
            thread.spawn_scoped(scope, allocate).unwrap().join().unwrap()
        }));
        let is_whole =
            |ptr: *mut u8| unsafe { std::slice::from_raw_parts(ptr, size) }.iter().all(|b| *b == 7);
        let before = sums(&profile::heap(), name);
        assert!(before[2] >= 1 && before[3] >= size as i64, "{name}: {before:?}");

        let sizes = [1, size / 2, size + 1, 2 * size, 300_000];
        let refused = refuse(|| sizes.map(|size| unsafe { ALLOC.realloc(ptr, layout, size) }.is_null()));
        assert_eq!(refused, [true; 5], "{name}");
        assert!(refuse(|| unsafe { ALLOC.alloc(layout).is_null() && ALLOC.alloc_zeroed(layout).is_null() }));
        assert_eq!(sums(&profile::heap(), name), before, "{name}");
        assert!(is_whole(ptr), "{name}");

        let grown = unsafe { ALLOC.realloc(ptr, layout, 2 * size) };
        assert!(!grown.is_null() && is_whole(grown), "{name}");
        let after = sums(&profile::heap(), name);
        assert_eq!(after[..2], before[..2], "{name}: another thread has allocated the new block");
        assert_eq!(after[2..], [0, 0], "{name}");
        unsafe { ALLOC.dealloc(grown, Layout::from_size_align(2 * size, align).unwrap()) };
    }
    heap_profile.stop();
}
