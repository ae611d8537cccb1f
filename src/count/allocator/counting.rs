//! The allocator that wraps another one and counts its calls.

use std::alloc::{GlobalAlloc, Layout, System};
use std::any::TypeId;
use std::hint::assert_unchecked;

use super::local;

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
/// It must not be called in a signal handler, whatever the inner allocator is: a handler may interrupt the hot path between
/// two steps that belong together.
///
/// Where the C library does not keep the destructors of thread-locals itself (musl, macOS, Windows), it needs Rust 1.93 or
/// later. Earlier versions of the standard library keep them in memory of the global allocator, and end the process if
/// that is the first thing that a thread allocates.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator<A = System> {
    inner: A,
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
        CountingAllocator { inner }
    }
}

impl<A: GlobalAlloc + 'static> CountingAllocator<A> {
    /// Returns true for alignments that `malloc` does not guarantee, if the inner allocator is the system's or jemalloc.
    /// Those two have separate code for them, which would charge the common path a stack frame or arithmetic if it were
    /// inlined there.
    #[inline(always)]
    fn is_overaligned(align: usize, size: usize) -> bool {
        let has_such_code = TypeId::of::<A>() == TypeId::of::<System>() || is_jemalloc::<A>();
        has_such_code && (align > 2 * size_of::<usize>() || align > size)
    }

    /// Counts and does a call of `alloc` or `alloc_zeroed`.
    #[inline(always)]
    fn allocate(&self, layout: Layout, call: impl Fn(&A, Layout) -> *mut u8) -> *mut u8 {
        if Self::is_overaligned(layout.align(), layout.size()) {
            self.allocate_overaligned(layout, call)
        } else {
            self.allocate_common(layout, call)
        }
    }

    #[inline(always)]
    fn allocate_common(&self, layout: Layout, call: impl Fn(&A, Layout) -> *mut u8) -> *mut u8 {
        // Counted before it is done: afterwards the size would have to be kept for both outcomes. A failure takes it back,
        // and until then a reader sees at most `STEP` bytes that come and go.
        if !local::count_alloc(layout.size()) {
            return self.allocate_slow(layout, call);
        }
        let ptr = call(&self.inner, layout);
        if ptr.is_null() { local::alloc_failed(layout.size()) } else { ptr }
    }

    #[cold]
    #[inline(never)]
    fn allocate_overaligned(&self, layout: Layout, call: impl Fn(&A, Layout) -> *mut u8) -> *mut u8 {
        self.allocate_common(layout, call)
    }

    #[cold]
    #[inline(never)]
    fn allocate_slow(&self, layout: Layout, call: impl Fn(&A, Layout) -> *mut u8) -> *mut u8 {
        local::alloc_slow(layout.size(), || call(&self.inner, layout))
    }

    /// Counts and does a call of `dealloc`.
    ///
    /// Not inlined: that would make every place where something is dropped so much larger that the compiler leaves other
    /// things there out of line, which may cost a program more than all counting. `self` comes last, so that the other
    /// arguments stay in the registers in which they arrive.
    ///
    /// # Safety
    /// * `ptr` is a live block of the inner allocator.
    /// * `size` and `align` are those of the layout it was allocated with.
    /// * That layout is not over-aligned, if the inner allocator is jemalloc.
    #[inline(never)]
    unsafe fn dealloc_common(ptr: *mut u8, size: usize, align: usize, this: &Self) {
        // Counted before it is done: afterwards another thread may already own the same memory.
        if !local::count_dealloc(size) {
            // SAFETY:
            // * The caller's obligations are the callee's.
            return unsafe { Self::dealloc_slow(ptr, size, align, this) };
        }
        // SAFETY:
        // * The caller says that the layout is not over-aligned under jemalloc.
        // * The size and the alignment are those of a layout.
        // * The block is live and has that layout.
        unsafe {
            assert_unchecked(!is_jemalloc::<A>() || !Self::is_overaligned(align, size));
            this.inner.dealloc(ptr, Layout::from_size_align_unchecked(size, align));
        }
    }

    /// Counts and does a call of `dealloc` for which [`local::count_dealloc`] returned false. It does the whole call, so
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
    /// * `layout` is the one it was allocated with.
    #[cold]
    #[inline(never)]
    unsafe fn dealloc_overaligned(&self, ptr: *mut u8, layout: Layout) {
        if !local::count_dealloc(layout.size()) {
            local::dealloc_slow(layout.size());
        }
        // SAFETY:
        // * The block is live and has that layout.
        unsafe { self.inner.dealloc(ptr, layout) }
    }

    /// Counts and does a call of `realloc`.
    ///
    /// # Safety
    /// * `ptr` is a live block of the inner allocator.
    /// * `layout` is the one it was allocated with.
    /// * `new_size` is not zero and makes a layout with the same alignment.
    #[inline(always)]
    unsafe fn realloc_common(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let old_size = layout.size();
        if !local::count_realloc(old_size, new_size) {
            // SAFETY:
            // * The caller's obligations are the callee's.
            return unsafe { self.realloc_slow(ptr, old_size, layout.align(), new_size) };
        }
        // SAFETY:
        // * The caller's obligations are the callee's.
        let ptr = unsafe { self.inner.realloc(ptr, layout, new_size) };
        if ptr.is_null() { local::realloc_failed(old_size, new_size) } else { ptr }
    }

    /// Counts and does a call of `realloc` whose new layout is over-aligned.
    ///
    /// # Safety
    /// Those of [`realloc_common`](Self::realloc_common).
    #[cold]
    #[inline(never)]
    unsafe fn realloc_overaligned(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY:
        // * The caller's obligations are the callee's.
        unsafe { self.realloc_common(ptr, layout, new_size) }
    }

    /// Counts and does a call of `realloc` for which [`local::count_realloc`] returned false.
    ///
    /// # Safety
    /// Those of [`realloc_common`](Self::realloc_common), where `size` and `align` are those of the layout.
    #[cold]
    #[inline(never)]
    unsafe fn realloc_slow(&self, ptr: *mut u8, size: usize, align: usize, new_size: usize) -> *mut u8 {
        // SAFETY:
        // * The size and the alignment are those of a layout.
        // * The caller's other obligations are the callee's.
        let call =
            || unsafe { self.inner.realloc(ptr, Layout::from_size_align_unchecked(size, align), new_size) };
        local::realloc_slow(size, new_size, call)
    }
}

#[cfg(feature = "jemalloc")]
fn is_jemalloc<A: 'static>() -> bool {
    TypeId::of::<A>() == TypeId::of::<tikv_jemallocator::Jemalloc>()
}

#[cfg(not(feature = "jemalloc"))]
fn is_jemalloc<A>() -> bool {
    false
}

// SAFETY:
// * Every method passes its arguments to the same method of `inner` unchanged and returns its result unchanged, so that
//   the contract is kept as `inner` keeps it.
// * Counting does not unwind.
// * Counting may allocate once in a thread, to register its destructor. The thread has its slot by then.
unsafe impl<A: GlobalAlloc + 'static> GlobalAlloc for CountingAllocator<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY:
        // * It is called once, with this layout: the caller's obligations are the callee's.
        self.allocate(layout, |inner, layout| unsafe { inner.alloc(layout) })
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY:
        // * It is called once, with this layout: the caller's obligations are the callee's.
        self.allocate(layout, |inner, layout| unsafe { inner.alloc_zeroed(layout) })
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY:
        // * The caller's obligations are the callees'.
        // * An over-aligned layout does not reach the common path under jemalloc.
        unsafe {
            if is_jemalloc::<A>() && Self::is_overaligned(align, size) {
                self.dealloc_overaligned(ptr, layout);
            } else {
                Self::dealloc_common(ptr, size, align, self);
            }
        }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY:
        // * The caller's obligations are the callees'.
        // * The assertion repeats the condition.
        unsafe {
            if Self::is_overaligned(layout.align(), new_size) {
                return self.realloc_overaligned(ptr, layout, new_size);
            }
            assert_unchecked(!Self::is_overaligned(layout.align(), new_size));
            self.realloc_common(ptr, layout, new_size)
        }
    }
}
