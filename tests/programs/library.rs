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
