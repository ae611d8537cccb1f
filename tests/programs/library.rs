//! A shared library with its own counting allocator, as a plug-in has it.

#![allow(unsafe_code, reason = "a function that C can call has an unmangled name")]

use std::hint::black_box;

use opentelemetry_instrumentation_runtime::{CountingAllocator, measure};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

/// Returns the number of bytes that the library's allocator counts for an allocation of `size`.
#[unsafe(no_mangle)]
pub extern "C" fn bytes_counted(size: usize) -> u64 {
    measure(|| drop(black_box(Vec::<u8>::with_capacity(size)))).1.allocated
}

/// Calls back, so that the callback's stack leads through the library.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn call_back(callback: extern "C" fn(usize), argument: usize) {
    callback(black_box(argument));
    // Keeps this frame: the call above is not the last thing that it does.
    black_box(argument);
}
