//! The allocator that wraps another one and counts its calls.

use std::alloc::{GlobalAlloc, Layout, System};
use std::any::TypeId;
use std::hint::assert_unchecked;

use super::inner::Inner;
use super::local;
#[cfg(feature = "profile")]
use super::mode::Sampled;
use super::mode::{Mode, Unsampled};
use super::slot::doubled;

/// Counts the calls of another allocator, and changes nothing else.
///
/// ```
/// use opentelemetry_instrumentation_runtime::CountingAllocator;
///
/// #[global_allocator]
/// static ALLOC: CountingAllocator = CountingAllocator::system();
/// # fn main() {}
/// ```
///
/// The inner allocator can be any [`GlobalAlloc`], as in `CountingAllocator::new(Jemalloc)`. All four methods are
/// forwarded, so that growing in place and zeroed pages cost what they cost without it.
///
/// Each thread counts in its own cache lines with plain loads and stores: no lock, no allocation, and no contention except
/// for one atomic addition, which keeps the peak, at most for every 16 KiB by which the thread's memory grows or shrinks.
/// The counts of a thread that ends stay, and the next thread continues them, so that nothing is lost and memory is bounded
/// by the largest number of threads alive at once (under 1 KiB each). After `fork`, the child's counters continue the
/// parent's. All counting allocators of a process count together.
///
/// It must not be called in a signal handler, with any inner allocator: a handler may interrupt the hot path between
/// two steps that belong together.
///
/// Where the C library does not keep the destructors of thread-locals itself (musl, macOS, Windows), it needs Rust 1.93 or
/// later. Earlier versions of the standard library keep them in memory of the global allocator, and end the process if
/// that is the first thing that a thread allocates.
#[cfg_attr(feature = "profile", doc = "")]
#[cfg_attr(
    feature = "profile",
    doc = "[`sampled`](Self::sampled) lets it take samples for the heap profile as well."
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator<A = System, M = Unsampled> {
    inner: Inner<A, M>,
}

impl CountingAllocator {
    /// Counts the calls of the system's allocator.
    pub const fn system() -> Self {
        CountingAllocator::new(System)
    }
}

impl<A> CountingAllocator<A> {
    /// Counts the calls of `inner`.
    pub const fn new(inner: A) -> Self {
        CountingAllocator { inner: Inner::new(inner) }
    }

    /// Lets the allocator take samples while a [`HeapProfile`](crate::profile::HeapProfile) runs.
    ///
    /// ```
    /// use std::alloc::System;
    ///
    /// use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};
    ///
    /// #[global_allocator]
    /// static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();
    /// # fn main() {}
    /// ```
    ///
    /// While no profile runs, that costs about three instructions for an allocation and its deallocation. A sampled block of up
    /// to 32 KiB is requested with an alignment of 4096 bytes, and with a size of at least 1040 bytes from `System`.
    #[cfg(feature = "profile")]
    pub const fn sampled(self) -> CountingAllocator<A, Sampled> {
        // SAFETY:
        // * `self` is forgotten.
        let inner = unsafe { self.inner.moved() };
        std::mem::forget(self);
        CountingAllocator { inner }
    }
}

impl<A: GlobalAlloc + 'static, M: Mode> CountingAllocator<A, M> {
    /// Returns true for alignments that `malloc` does not guarantee, if the inner allocator is the system's or jemalloc.
    /// Those two have separate code for them, which would charge the common path a stack frame or arithmetic if it were
    /// inlined there.
    #[inline(always)]
    fn is_overaligned(align: usize, size: usize) -> bool {
        let has_such_code = TypeId::of::<A>() == TypeId::of::<System>() || is_jemalloc::<A>();
        has_such_code && (align > 2 * size_of::<usize>() || align > size)
    }

    /// Counts and does a call of `alloc`, or of `alloc_zeroed`.
    ///
    /// # Safety
    /// * The size of `layout` is not zero.
    #[inline(always)]
    unsafe fn allocate<const ZEROED: bool>(&self, layout: Layout) -> *mut u8 {
        // SAFETY:
        // * The caller's obligation is the callees'.
        unsafe {
            if Self::is_overaligned(layout.align(), layout.size()) {
                Self::allocate_overaligned::<ZEROED>(layout.size(), layout.align(), self)
            } else {
                self.allocate_common::<ZEROED>(layout)
            }
        }
    }

    /// Counts and does a call of `alloc`, or of `alloc_zeroed`.
    ///
    /// # Safety
    /// * The size of `layout` is not zero.
    #[inline(always)]
    unsafe fn allocate_common<const ZEROED: bool>(&self, layout: Layout) -> *mut u8 {
        // Counted before it is done, since a sample is to be requested with another alignment. A failure takes it back, and
        // until then a reader sees at most 16 KiB that come and go.
        let doubled = doubled(layout.size());
        if local::count_alloc(doubled).is_none() {
            // SAFETY:
            // * The caller's obligation is the callee's.
            return unsafe { Self::allocate_slow::<ZEROED>(layout.size(), layout.align(), self) };
        }
        // SAFETY:
        // * The caller's obligation is the callee's.
        let ptr = unsafe { self.inner.alloc::<ZEROED>(layout) };
        if ptr.is_null() { local::alloc_failed(doubled) } else { ptr }
    }

    /// Counts and does a call whose layout is over-aligned. `self` comes last, here and below, so that the other arguments
    /// stay in the registers in which they arrive.
    ///
    /// # Safety
    /// * `size` and `align` make a layout, and `size` is not zero.
    #[cold]
    #[inline(never)]
    unsafe fn allocate_overaligned<const ZEROED: bool>(size: usize, align: usize, this: &Self) -> *mut u8 {
        // SAFETY:
        // * The caller's obligations are the callees'.
        unsafe { this.allocate_common::<ZEROED>(Layout::from_size_align_unchecked(size, align)) }
    }

    /// Counts and does a call for which [`local::count_alloc`] returned `None`.
    ///
    /// # Safety
    /// * `size` and `align` make a layout, and `size` is not zero.
    #[cold]
    #[inline(never)]
    unsafe fn allocate_slow<const ZEROED: bool>(size: usize, align: usize, this: &Self) -> *mut u8 {
        // SAFETY:
        // * The caller's obligations are the callees'.
        let call = |weight| unsafe {
            let layout = Layout::from_size_align_unchecked(size, align);
            match weight {
                Some(weight) => this.inner.alloc_sampled::<ZEROED>(layout, weight),
                None => this.inner.alloc::<ZEROED>(layout),
            }
        };
        local::alloc_slow::<M>(size, call)
    }

    /// Counts and does a call of `dealloc`.
    ///
    /// Not inlined: that would make every place where something is dropped so much larger that the compiler leaves other
    /// things there out of line, which may cost a program more than all counting.
    ///
    /// # Safety
    /// * `ptr` is a live block of the inner allocator.
    /// * `size` and `align` are those of the layout it was allocated with.
    /// * That layout is not over-aligned, if the inner allocator is jemalloc.
    #[inline(never)]
    unsafe fn dealloc_common(ptr: *mut u8, size: usize, align: usize, this: &Self) {
        // Counted before it is done: afterwards another thread may already own the same memory.
        let Some(small) = local::count_dealloc(size) else {
            // SAFETY:
            // * The caller's obligations are the callee's.
            return unsafe { Self::dealloc_slow(ptr, size, align, this) };
        };
        // SAFETY:
        // * The caller says that the layout is not over-aligned under jemalloc.
        // * The size and the alignment are those of a layout.
        // * The block is live and has that layout.
        // * It was counted in this call.
        unsafe {
            assert_unchecked(!is_jemalloc::<A>() || !Self::is_overaligned(align, size));
            this.inner.dealloc_small(ptr, Layout::from_size_align_unchecked(size, align), small);
        }
    }

    /// Counts and does a call of `dealloc` for which [`local::count_dealloc`] returned `None`. It does the whole call, so
    /// that the common path ends in a jump to the inner allocator and saves no registers.
    ///
    /// # Safety
    /// * `ptr` is a live block of the inner allocator.
    /// * `size` and `align` are those of the layout it was allocated with.
    #[cold]
    #[inline(never)]
    unsafe fn dealloc_slow(ptr: *mut u8, size: usize, align: usize, this: &Self) {
        local::dealloc_slow(size);
        // SAFETY:
        // * The size and the alignment are those of a layout.
        // * The block is live and has that layout.
        unsafe { this.inner.dealloc(ptr, Layout::from_size_align_unchecked(size, align)) }
    }

    /// Counts and does a call of `dealloc` whose layout is over-aligned.
    ///
    /// # Safety
    /// * `ptr` is a live block of the inner allocator.
    /// * `size` and `align` are those of the layout it was allocated with.
    #[cold]
    #[inline(never)]
    unsafe fn dealloc_overaligned(ptr: *mut u8, size: usize, align: usize, this: &Self) {
        if local::count_dealloc(size).is_none() {
            local::dealloc_slow(size);
        }
        // SAFETY:
        // * The size and the alignment are those of a layout.
        // * The block is live and has that layout.
        unsafe { this.inner.dealloc(ptr, Layout::from_size_align_unchecked(size, align)) }
    }

    /// Counts and does a call of `realloc`.
    ///
    /// # Safety
    /// * `ptr` is a live block of the inner allocator.
    /// * `size` and `align` are those of the layout it was allocated with.
    /// * `new_size` is not zero and makes a layout with the same alignment.
    #[inline(always)]
    unsafe fn realloc_common(
        ptr: *mut u8,
        size: usize,
        align: usize,
        new_size: usize,
        this: &Self,
    ) -> *mut u8 {
        let Some(small) = local::count_realloc(size, new_size) else {
            // SAFETY:
            // * The caller's obligations are the callee's.
            return unsafe { Self::realloc_slow(ptr, size, align, new_size, this) };
        };
        // Passed by reference so that the compiler puts them into memory: two registers that survive the call would have to
        // be saved first, at four more instructions.
        let sizes = (size, new_size);
        // SAFETY:
        // * The size and the alignment are those of a layout.
        // * The caller's other obligations are the callee's.
        // * The block was counted in this call.
        let ptr = unsafe {
            this.inner.realloc_small(ptr, Layout::from_size_align_unchecked(size, align), new_size, small)
        };
        if ptr.is_null() { local::realloc_failed(&sizes) } else { ptr }
    }

    /// Counts and does a call of `realloc` whose new layout is over-aligned.
    ///
    /// # Safety
    /// Those of [`realloc_common`](Self::realloc_common).
    #[cold]
    #[inline(never)]
    unsafe fn realloc_overaligned(
        ptr: *mut u8,
        size: usize,
        align: usize,
        new_size: usize,
        this: &Self,
    ) -> *mut u8 {
        // SAFETY:
        // * The caller's obligations are the callee's.
        unsafe { Self::realloc_common(ptr, size, align, new_size, this) }
    }

    /// Counts and does a call of `realloc` for which [`local::count_realloc`] returned `None`.
    ///
    /// # Safety
    /// Those of [`realloc_common`](Self::realloc_common).
    #[cold]
    #[inline(never)]
    unsafe fn realloc_slow(ptr: *mut u8, size: usize, align: usize, new_size: usize, this: &Self) -> *mut u8 {
        // SAFETY:
        // * The size and the alignment are those of a layout.
        // * The caller's other obligations are the callee's.
        let call = |weight| unsafe {
            this.inner.realloc(ptr, Layout::from_size_align_unchecked(size, align), new_size, weight)
        };
        local::realloc_slow::<M>(size, new_size, call)
    }
}

#[cfg(feature = "jemalloc")]
fn is_jemalloc<A: 'static>() -> bool {
    TypeId::of::<A>() == TypeId::of::<tikv_jemallocator::Jemalloc>()
}

#[cfg(not(feature = "jemalloc"))]
#[allow(clippy::extra_unused_type_parameters, reason = "the other version compares the type")]
fn is_jemalloc<A: 'static>() -> bool {
    false
}

// SAFETY:
// * Every method passes its arguments to the same method of the inner allocator and returns its result, so that the
//   contract is kept as the inner allocator keeps it. A sample has a larger alignment than was requested, and
//   `Inner` gives it back with that one.
// * Counting and sampling do not unwind.
// * Counting may allocate once in a thread, to register its destructor. The thread has its slot by then.
unsafe impl<A: GlobalAlloc + 'static, M: Mode> GlobalAlloc for CountingAllocator<A, M> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY:
        // * The caller's obligation is the callee's.
        unsafe { self.allocate::<false>(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY:
        // * The caller's obligation is the callee's.
        unsafe { self.allocate::<true>(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY:
        // * The caller's obligations are the callees'.
        // * An over-aligned layout does not reach the common path under jemalloc.
        unsafe {
            if is_jemalloc::<A>() && Self::is_overaligned(align, size) {
                Self::dealloc_overaligned(ptr, size, align, self);
            } else {
                Self::dealloc_common(ptr, size, align, self);
            }
        }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY:
        // * The caller's obligations are the callees'.
        // * The assertion repeats the condition.
        unsafe {
            if Self::is_overaligned(align, new_size) {
                return Self::realloc_overaligned(ptr, size, align, new_size, self);
            }
            assert_unchecked(!Self::is_overaligned(align, new_size));
            Self::realloc_common(ptr, size, align, new_size, self)
        }
    }
}
