//! A shared library with a counting allocator of its own, as a plug-in has it.

#![allow(unsafe_code, reason = "a function that C can call has an unmangled name")]

use std::hint::black_box;

use opentelemetry_instrumentation_runtime::{CountingAllocator, measure};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

/// How many bytes the library's allocator counts when it is asked for `size`.
#[unsafe(no_mangle)]
pub extern "C" fn bytes_counted(size: usize) -> u64 {
    measure(|| drop(black_box(Vec::<u8>::with_capacity(size)))).1.allocated
}
