//! Measures what a piece of code allocates.

use std::hint::black_box;

use super::local;

/// Runs a closure and returns its result with what it allocated on this thread, like Go's `ReportAllocs`.
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
/// Only the calling thread counts: the result does not include what the closure has other threads, a pool or
/// `tokio::spawn` do. Calls can be nested; the outer one includes the inner one. An `async` block as the closure's
/// result would be created and not run: measure a `block_on` on a current-thread runtime, or a single `poll`.
///
/// All numbers are zero if [`CountingAllocator`](crate::CountingAllocator) is not the global allocator.
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

/// Returns true if the global allocator of this process counts. Finds out by an allocation.
pub(crate) fn is_global() -> bool {
    let (_, stats) = measure(|| drop(black_box(Box::new(0_u8))));
    stats.allocations > 0
}

/// The allocations and deallocations that [`measure`] saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AllocationStats {
    /// Successful calls of `alloc` and `alloc_zeroed`.
    pub allocations: u64,
    /// Calls of `dealloc`.
    pub deallocations: u64,
    /// Successful calls of `realloc`. The other two do not include them.
    pub reallocations: u64,
    /// Bytes handed out. A reallocation hands out its new size.
    pub allocated: u64,
    /// Bytes given back. A reallocation gives back its old size.
    pub deallocated: u64,
}
