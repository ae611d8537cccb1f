//! What a piece of code allocates.

use super::local;

/// Runs a closure and tells what it allocated on this thread: Go's `ReportAllocs` for a test or a benchmark.
///
/// ```
/// use opentelemetry_instrumentation_runtime::{CountingAllocator, measure};
///
/// #[global_allocator]
/// static ALLOC: CountingAllocator = CountingAllocator::system();
///
/// # fn main() {
/// let (text, stats) = measure(|| String::from("hello"));
/// assert_eq!((stats.allocations, stats.allocated), (1, 5));
/// assert_eq!(stats.deallocations, 0, "the text is still alive");
/// # drop(text);
/// # }
/// ```
///
/// Only the calling thread counts: what the closure has done by other threads, a pool or `tokio::spawn`, is not
/// in it. Calls can be nested; the outer one includes the inner one. In async code the closure must not be an
/// `async` block, which would be made and not run: measure a `block_on` on a current-thread runtime, or a single
/// `poll`. All zeros where [`CountingAllocator`](crate::CountingAllocator) is not the global allocator.
pub fn measure<R>(closure: impl FnOnce() -> R) -> (R, AllocationStats) {
    let before = local::own_totals();
    let result = closure();
    let after = local::own_totals();
    let stats = AllocationStats {
        allocations: after.allocations().wrapping_sub(before.allocations()),
        deallocations: after.deallocations.wrapping_sub(before.deallocations),
        reallocations: after.reallocations.wrapping_sub(before.reallocations),
        allocated: after.allocated.wrapping_sub(before.allocated),
        deallocated: after.deallocated.wrapping_sub(before.deallocated),
    };
    (result, stats)
}

/// What was allocated in the course of something. Told by [`measure`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AllocationStats {
    /// Successful calls of `alloc` and `alloc_zeroed`.
    pub allocations: u64,
    /// Calls of `dealloc`.
    pub deallocations: u64,
    /// Successful calls of `realloc`. They are in neither of the other two.
    pub reallocations: u64,
    /// Bytes handed out. A reallocation hands out its new size.
    pub allocated: u64,
    /// Bytes given back. A reallocation gives back its old size.
    pub deallocated: u64,
}
