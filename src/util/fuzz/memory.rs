//! Counts the memory that a thread holds, in the unit tests.

#![allow(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// What this thread has allocated less what it has freed, and the most since the last call of [`peak`].
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts beside the library's own allocator, which these tests test.
struct Measured;

#[global_allocator]
static MEASURED: Measured = Measured;

/// Returns the result of a call, and the most memory that it has held at a time. A call may contain another one.
pub(crate) fn peak<R>(call: impl FnOnce() -> R) -> (R, usize) {
    let (before, outer) = (HELD.get(), PEAK.get());
    PEAK.set(before);
    let result = call();
    let peak = PEAK.get();
    PEAK.set(outer.max(peak));
    (result, peak.saturating_sub(before).try_into().unwrap_or_default())
}

/// Forgets the peak so far, which making an input has caused.
pub(super) fn forget_peak() {
    PEAK.set(HELD.get());
}

fn add(bytes: usize) {
    let held = HELD.get().saturating_add_unsigned(bytes);
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

fn subtract(bytes: usize) {
    HELD.set(HELD.get().saturating_sub_unsigned(bytes));
}

// SAFETY: all calls go to the system's allocator as they came. The counters neither allocate nor panic.
unsafe impl GlobalAlloc for Measured {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's obligations are those of this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's obligations are those of this call.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: the caller's obligations are those of this call.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size);
        subtract(layout.size());
        // SAFETY: the caller's obligations are those of this call.
        unsafe { System.realloc(block, layout, size) }
    }
}
