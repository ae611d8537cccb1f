//! The allocator that is put around another one: what runs at each call.

use std::alloc::{GlobalAlloc, Layout, System};
use std::any::TypeId;
use std::borrow::Borrow;
use std::hint::assert_unchecked;
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::local;
use super::slot::doubled;

/// Counts what another allocator does, and does nothing else.
///
/// ```
/// use opentelemetry_instrumentation_runtime::CountingAllocator;
///
/// #[global_allocator]
/// static ALLOC: CountingAllocator = CountingAllocator::system();
/// # fn main() {}
/// ```
///
/// Any [`GlobalAlloc`] can be inside, such as `CountingAllocator::new(Jemalloc)`. All four of its methods are
/// forwarded, so that growing in place and zeroed pages cost what they cost without it.
///
/// Each thread counts into cache lines of its own with plain loads and stores: no lock, no allocation, nothing to
/// contend for but one atomic addition, which keeps the peak, at most for every 16 KiB that the thread comes to hold or ceases
/// to. The counts of a thread that ends stay, and its slot goes to the next thread, so that nothing is lost and memory is
/// bounded by the most threads alive at once (under 1 KiB each).
/// In a child after `fork` the counters go on from where the parent's stood.
///
/// It must not be called in a signal handler, whatever is inside: a handler may come between two steps of the hot path that
/// belong together.
///
/// Where the C library does not keep the destructors of thread-locals itself (musl, macOS, Windows), it wants Rust 1.93 or
/// later. The standard library of earlier versions keeps them in memory of the global allocator, and ends the process if
/// that is the first thing that a thread allocates.
///
/// All counting allocators of a process count together.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator<A = System> {
    inner: A,
}

impl CountingAllocator {
    /// Counts what the system's allocator does.
    pub const fn system() -> Self {
        CountingAllocator::new(System)
    }
}

impl<A> CountingAllocator<A> {
    /// Counts what `inner` does.
    pub const fn new(inner: A) -> Self {
        CountingAllocator { inner }
    }
}

impl<A: GlobalAlloc + 'static> CountingAllocator<A> {
    /// `System` and jemalloc serve alignments that `malloc` does not guarantee from a path of their own. Inlined beside the
    /// common path it would charge that its stack frame, or its arithmetic.
    #[inline]
    fn is_awkward(align: usize, size: usize) -> bool {
        let has_such_a_path = TypeId::of::<A>() == TypeId::of::<System>() || is_jemalloc::<A>();
        has_such_a_path && (align > 2 * size_of::<usize>() || align > size)
    }

    /// Calls `alloc` or `alloc_zeroed` and counts it.
    #[inline(always)]
    fn allocate(&self, layout: Layout, call: impl Fn(&A, Layout) -> *mut u8) -> *mut u8 {
        if Self::is_awkward(layout.align(), layout.size()) {
            return allocate_awkward(layout, &self.inner, call);
        }
        let doubled = doubled(layout.size());
        local::allocated(call(&self.inner, layout), doubled)
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

/// An inner allocator that has no size, as most: its address need not be passed.
struct Sizeless<A>(PhantomData<A>);

impl<A> Borrow<A> for Sizeless<A> {
    #[inline(always)]
    fn borrow(&self) -> &A {
        // SAFETY: `A` has no bytes that could be read, and whoever made this had a reference to one.
        unsafe { NonNull::dangling().as_ref() }
    }
}

/// A number that waits in memory until it is asked for, rather than in a register that would have to be saved.
struct Aside(usize);

impl Aside {
    #[inline(always)]
    fn put(&mut self, number: usize) {
        // SAFETY: it is a number's place.
        unsafe { (&raw mut self.0).write_volatile(number) }
    }

    #[inline(always)]
    fn take(&self) -> usize {
        // SAFETY: it is a number's place.
        unsafe { (&raw const self.0).read_volatile() }
    }
}

#[cold]
#[inline(never)]
fn allocate_awkward<A>(layout: Layout, inner: &A, call: impl Fn(&A, Layout) -> *mut u8) -> *mut u8 {
    local::allocated(call(inner, layout), doubled(layout.size()))
}

/// All of `dealloc` but for its rare ways. Not inlined: it would make whatever drops something so much larger that the compiler
/// leaves other things there out of line, which may cost a program more than all counting. The inner allocator comes last,
/// so that the other arguments stay in the registers that they came in.
///
/// # Safety
/// Those of [`GlobalAlloc::dealloc`]. The size and the alignment are those of its layout, and for jemalloc not awkward.
#[inline(never)]
unsafe fn dealloc_common<A: GlobalAlloc + 'static>(
    ptr: *mut u8,
    size: usize,
    align: usize,
    inner: impl Borrow<A>,
) {
    // Counted before it is done: afterwards another thread may already have been given the same memory.
    if local::deallocated(size) {
        // SAFETY: the caller says so, and that the rest are a layout's; its other obligations are the callee's.
        unsafe {
            assert_unchecked(!is_jemalloc::<A>() || !CountingAllocator::<A>::is_awkward(align, size));
            inner.borrow().dealloc(ptr, Layout::from_size_align_unchecked(size, align));
        }
    } else {
        // SAFETY: the caller's obligations are the callee's.
        unsafe { dealloc_settling::<A>(ptr, size, align, inner) }
    }
}

/// All of `dealloc` where the thread's room is used up, rather than a call on the way, so that the common path ends in a
/// jump to the inner allocator and saves no registers.
///
/// # Safety
/// Those of [`GlobalAlloc::dealloc`]. The size and the alignment are those of its layout.
#[cold]
#[inline(never)]
unsafe fn dealloc_settling<A: GlobalAlloc>(ptr: *mut u8, size: usize, align: usize, inner: impl Borrow<A>) {
    local::deallocated_settling(size);
    // SAFETY: they are a layout's, and the caller's other obligations are the callee's.
    unsafe { inner.borrow().dealloc(ptr, Layout::from_size_align_unchecked(size, align)) }
}

/// # Safety
/// Those of [`GlobalAlloc::dealloc`].
#[cold]
#[inline(never)]
unsafe fn dealloc_awkward<A: GlobalAlloc>(ptr: *mut u8, layout: Layout, inner: &A) {
    if !local::deallocated(layout.size()) {
        local::deallocated_settling(layout.size());
    }
    // SAFETY: the caller's obligations are the callee's.
    unsafe { inner.dealloc(ptr, layout) }
}

/// All of `realloc` where the alignment is awkward, or, as was found in trying to count it, the thread's room is used up.
///
/// # Safety
/// Those of [`GlobalAlloc::realloc`]. The old size and the alignment are those of its layout.
#[cold]
#[inline(never)]
unsafe fn realloc_settling<const TRIED: bool, A: GlobalAlloc>(
    ptr: *mut u8,
    size: usize,
    align: usize,
    new_size: usize,
    inner: &A,
) -> *mut u8 {
    // SAFETY: they are a layout's, and the caller's other obligations are the callee's.
    let call = || unsafe { inner.realloc(ptr, Layout::from_size_align_unchecked(size, align), new_size) };
    local::reallocated_settling(TRIED, call, size, new_size)
}

// SAFETY: every method hands its arguments to the same method of `inner` unchanged and returns that one's result
// unchanged, so that the contract is kept as `inner` keeps it. Counting does not unwind, and where making a thread's end
// known allocates, the thread has its slot by then.
unsafe impl<A: GlobalAlloc + 'static> GlobalAlloc for CountingAllocator<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: it is called once, with this layout: the caller's obligations are the callee's.
        self.allocate(layout, |inner, layout| unsafe { inner.alloc(layout) })
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: it is called once, with this layout: the caller's obligations are the callee's.
        self.allocate(layout, |inner, layout| unsafe { inner.alloc_zeroed(layout) })
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let (size, align) = (layout.size(), layout.align());
        if is_jemalloc::<A>() && Self::is_awkward(align, size) {
            // SAFETY: the caller's obligations are the callee's.
            unsafe { dealloc_awkward(ptr, layout, &self.inner) }
        } else if size_of::<A>() == 0 {
            // SAFETY: the caller's obligations are the callee's.
            unsafe { dealloc_common::<A>(ptr, size, align, Sizeless(PhantomData)) }
        } else {
            // SAFETY: the caller's obligations are the callee's.
            unsafe { dealloc_common::<A>(ptr, size, align, &self.inner) }
        }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (old_size, align) = (layout.size(), layout.align());
        // Counted before it is done, too: afterwards the sizes would have to be fetched first. A failure takes it back, and
        // meanwhile a reader sees at most `STEP` bytes that move to and fro.
        // A counter in halves must not be taken back: to a reader it might look as if it had not been written meanwhile.
        let takes_back = cfg!(target_has_atomic = "64");
        if !takes_back || Self::is_awkward(align, new_size) {
            // SAFETY: the caller's obligations are the callee's.
            return unsafe { realloc_settling::<false, A>(ptr, old_size, align, new_size, &self.inner) };
        }
        if !local::reallocated(old_size, new_size) {
            // SAFETY: the caller's obligations are the callee's.
            return unsafe { realloc_settling::<true, A>(ptr, old_size, align, new_size, &self.inner) };
        }
        let (mut old, mut new) = (Aside(0), Aside(0));
        old.put(old_size);
        new.put(new_size);
        // SAFETY: it is not awkward, as was just seen, and the caller's obligations are the callee's.
        let ptr = unsafe {
            assert_unchecked(!Self::is_awkward(align, new_size));
            self.inner.realloc(ptr, layout, new_size)
        };
        if ptr.is_null() { local::not_reallocated(old.take(), new.take()) } else { ptr }
    }
}
