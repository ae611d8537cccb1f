//! The service with the least that counting can cost: four thread-local sums that no other thread can read, without a peak,
//! size classes, or an action at the end of a thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

mod app;

struct Least;

struct Sums {
    allocations: Cell<usize>,
    allocated: Cell<usize>,
    deallocations: Cell<usize>,
    deallocated: Cell<usize>,
}

thread_local! {
    static SUMS: Sums = const {
        Sums {
            allocations: Cell::new(0),
            allocated: Cell::new(0),
            deallocations: Cell::new(0),
            deallocated: Cell::new(0),
        }
    };
}

fn add(to: &Cell<usize>, amount: usize) {
    to.set(to.get().wrapping_add(amount));
}

fn allocated(ptr: *mut u8, size: usize) -> *mut u8 {
    if !ptr.is_null() {
        SUMS.with(|sums| {
            add(&sums.allocations, 1);
            add(&sums.allocated, size);
        });
    }
    ptr
}

fn deallocated(size: usize) {
    SUMS.with(|sums| {
        add(&sums.deallocations, 1);
        add(&sums.deallocated, size);
    });
}

// SAFETY: each method passes its arguments on unchanged.
unsafe impl GlobalAlloc for Least {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocated(unsafe { System.alloc(layout) }, layout.size())
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        allocated(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        deallocated(layout.size());
        unsafe { System.dealloc(ptr, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let ptr = allocated(unsafe { System.realloc(ptr, layout, new_size) }, new_size);
        if !ptr.is_null() {
            deallocated(layout.size());
        }
        ptr
    }
}

#[global_allocator]
static GLOBAL: Least = Least;

fn main() {
    app::run(
        async |listener, app| {
            tokio::spawn(async { axum::serve(listener, app).await });
        },
        |_| {},
    );
    SUMS.with(|sums| {
        assert!(sums.allocations.get() >= sums.deallocations.get());
        assert!(sums.allocated.get() >= sums.deallocated.get());
    });
}
