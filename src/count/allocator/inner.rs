//! The inner allocator, behind the only gate to it.
//!
//! A sampled block of up to [`STEP`] bytes has been requested with the alignment [`TAG`], so that two instructions recognise
//! a block that may be a sample. A larger block is looked up in any case. The block has to go back to the inner allocator
//! with the alignment that was requested, which the samples know: an allocator that trusts the layout would otherwise
//! corrupt its memory. The field `allocator` is private to this file for that reason: no other code can forget to ask.

use std::alloc::{GlobalAlloc, Layout, System};
use std::any::TypeId;
use std::marker::PhantomData;
use std::ptr;

use super::local::Small;
use super::mode::Mode;
use super::peak::STEP;

/// The alignment of sampled blocks. A program that requests it itself gets blocks which look like samples and are looked up.
const TAG: usize = 4096;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inner<A, M> {
    allocator: A,
    mode: PhantomData<M>,
}

impl<A, M> Inner<A, M> {
    pub(super) const fn new(allocator: A) -> Self {
        Inner { allocator, mode: PhantomData }
    }

    /// Moves the allocator to another mode.
    ///
    /// # Safety
    /// * `self` is neither used nor dropped afterwards.
    #[cfg(feature = "profile")]
    pub(super) const unsafe fn moved<N>(&self) -> Inner<A, N> {
        // SAFETY:
        // * The pointer is that of an allocator.
        // * The caller says that the original is neither used nor dropped.
        Inner::new(unsafe { ptr::read(&raw const self.allocator) })
    }
}

/// Returns a layout with the size of another one. Both are known to make a layout.
///
/// # Safety
/// * `align` is a power of two.
/// * `size`, rounded up to `align`, does not exceed `isize::MAX`.
#[inline(always)]
unsafe fn layout_of(size: usize, align: usize) -> Layout {
    // SAFETY:
    // * The caller's obligations are the callee's.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

/// Returns true if a block of the mode may be a sample.
#[inline(always)]
fn is_tagged<M: Mode>(ptr: *mut u8) -> bool {
    // Without the lowest bits, which are 0 anyway: the compiler makes two instructions of this test, and three of the one for
    // all bits. A block that has one of them is looked up, and is no sample.
    const BITS: usize = (TAG - 1) & !7;
    M::IS_SAMPLED && ptr.addr() & BITS == 0
}

impl<A: GlobalAlloc + 'static, M: Mode> Inner<A, M> {
    /// Returns the layout that the inner allocator is asked for when a block of up to [`STEP`] bytes becomes a sample.
    ///
    /// glibc keeps freed blocks of up to 1032 bytes by their size, and hands out the last one first: a program that allocates
    /// and frees one size in turn would get the page of its last sample again and again, and each time look for a sample.
    ///
    /// # Safety
    /// * `size` is at most [`STEP`].
    unsafe fn promoted(size: usize) -> Layout {
        const NOT_KEPT: usize = 1040;
        let size = if TypeId::of::<A>() == TypeId::of::<System>() { size.max(NOT_KEPT) } else { size };
        // SAFETY:
        // * `TAG` is a power of two.
        // * A size up to `STEP` is far below `isize::MAX`.
        unsafe { layout_of(size, TAG) }
    }

    /// Returns the layout that the inner allocator was asked for when a block was allocated with `size` and `align`.
    ///
    /// # Safety
    /// * `size` and `align` are those of a layout.
    /// * `requested` is the alignment that a sample keeps, if the block is a sample, and otherwise `align`.
    unsafe fn requested(size: usize, align: usize, requested: usize) -> Layout {
        // SAFETY:
        // * Only promoted blocks have another alignment, and their size is at most `STEP`.
        // * The caller says that they make a layout.
        unsafe { if requested == align { layout_of(size, align) } else { Self::promoted(size) } }
    }

    /// Allocates a block that is no sample.
    ///
    /// # Safety
    /// * The size of `layout` is not zero.
    #[inline(always)]
    pub(super) unsafe fn alloc<const ZEROED: bool>(&self, layout: Layout) -> *mut u8 {
        // SAFETY:
        // * The caller's obligation is the callee's.
        unsafe { if ZEROED { self.allocator.alloc_zeroed(layout) } else { self.allocator.alloc(layout) } }
    }

    /// Allocates a block as a sample, or as a block that is none if there is no place for the sample.
    ///
    /// # Safety
    /// * The size of `layout` is not zero.
    pub(super) unsafe fn alloc_sampled<const ZEROED: bool>(&self, layout: Layout, weight: f64) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        let promoted = if size <= STEP && align < TAG {
            // SAFETY:
            // * The condition.
            unsafe { Self::promoted(size) }
        } else {
            layout
        };
        // SAFETY:
        // * The size is not zero.
        let ptr = unsafe { self.alloc::<ZEROED>(promoted) };
        if ptr.is_null() || M::record(ptr, size, promoted.align(), weight) || promoted == layout {
            return ptr;
        }
        // SAFETY:
        // * The block was just allocated with this layout and is no sample.
        // * The size is not zero.
        unsafe {
            self.allocator.dealloc(ptr, promoted);
            self.alloc::<ZEROED>(layout)
        }
    }

    /// Gives back a block that the hot path has counted.
    ///
    /// # Safety
    /// * `ptr` is a live block of this allocator.
    /// * `layout` is the one it was allocated with.
    /// * `_small` comes from counting this block.
    #[inline(always)]
    pub(super) unsafe fn dealloc_small(&self, ptr: *mut u8, layout: Layout, _small: Small) {
        // SAFETY:
        // * The caller's obligations are the callees'.
        // * A small block without the tag is no sample.
        unsafe {
            if is_tagged::<M>(ptr) {
                Self::dealloc_tagged(ptr, layout.size(), layout.align(), self);
            } else {
                self.allocator.dealloc(ptr, layout);
            }
        }
    }

    /// Gives back any block.
    ///
    /// # Safety
    /// * `ptr` is a live block of this allocator.
    /// * `layout` is the one it was allocated with.
    pub(super) unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY:
        // * The caller's obligations are the callees'.
        // * A block without the tag that is not large is no sample.
        unsafe {
            if is_tagged::<M>(ptr) || (M::IS_SAMPLED && layout.size() > STEP) {
                Self::dealloc_tagged(ptr, layout.size(), layout.align(), self);
            } else {
                self.allocator.dealloc(ptr, layout);
            }
        }
    }

    /// Gives back a block that may be a sample.
    ///
    /// # Safety
    /// * `ptr` is a live block of this allocator.
    /// * `size` and `align` are those of the layout it was allocated with.
    #[cold]
    #[inline(never)]
    unsafe fn dealloc_tagged(ptr: *mut u8, size: usize, align: usize, this: &Self) {
        // Removed before it is given back: afterwards another thread may already own the same memory.
        let requested = match M::take(ptr) {
            Some(taken) => {
                M::end(ptr, &taken);
                taken.align
            }
            None => align,
        };
        // SAFETY:
        // * The block is live and was requested with this layout.
        unsafe { this.allocator.dealloc(ptr, Self::requested(size, align, requested)) }
    }

    /// Changes the size of a block that the hot path has counted.
    ///
    /// # Safety
    /// * `ptr` is a live block of this allocator.
    /// * `layout` is the one it was allocated with.
    /// * `new_size` is not zero and makes a layout with the same alignment.
    /// * `_small` comes from counting this call.
    #[inline(always)]
    pub(super) unsafe fn realloc_small(
        &self,
        ptr: *mut u8,
        layout: Layout,
        new_size: usize,
        _small: Small,
    ) -> *mut u8 {
        // SAFETY:
        // * The caller's obligations are the callees'.
        // * A small block without the tag is no sample.
        unsafe {
            if is_tagged::<M>(ptr) {
                Self::realloc_tagged(ptr, layout.size(), layout.align(), new_size, self, None)
            } else {
                self.allocator.realloc(ptr, layout, new_size)
            }
        }
    }

    /// Changes the size of any block, which becomes a sample if `weight` is given.
    ///
    /// # Safety
    /// * `ptr` is a live block of this allocator.
    /// * `layout` is the one it was allocated with.
    /// * `new_size` is not zero and makes a layout with the same alignment.
    pub(super) unsafe fn realloc(
        &self,
        ptr: *mut u8,
        layout: Layout,
        new_size: usize,
        weight: Option<f64>,
    ) -> *mut u8 {
        // SAFETY:
        // * The caller's obligations are the callees'.
        // * A block without the tag that is not large is no sample.
        unsafe {
            if is_tagged::<M>(ptr) || (M::IS_SAMPLED && (layout.size() > STEP || weight.is_some())) {
                Self::realloc_tagged(ptr, layout.size(), layout.align(), new_size, self, weight)
            } else {
                self.allocator.realloc(ptr, layout, new_size)
            }
        }
    }

    /// Changes the size of a block that may be a sample or is to become one: the end of one sample and the beginning of
    /// another one.
    ///
    /// # Safety
    /// Those of [`realloc`](Self::realloc), where `old_size` and `align` are those of the layout.
    #[cold]
    #[inline(never)]
    unsafe fn realloc_tagged(
        ptr: *mut u8,
        old_size: usize,
        align: usize,
        new_size: usize,
        this: &Self,
        weight: Option<f64>,
    ) -> *mut u8 {
        let requested = M::align_of(ptr).unwrap_or(align);
        let becomes_promoted = weight.is_some() && new_size <= STEP && align < TAG;
        if requested == align && !becomes_promoted {
            // Taken out before: afterwards another thread may already own the old block.
            let taken = M::take(ptr);
            // SAFETY:
            // * The block is live and was requested with this layout.
            // * The caller says so of `new_size`.
            let new = unsafe { this.allocator.realloc(ptr, layout_of(old_size, align), new_size) };
            match taken {
                Some(taken) if new.is_null() => M::put_back(ptr, &taken),
                Some(taken) => M::end(ptr, &taken),
                None => (),
            }
            if let Some(weight) = weight
                && !new.is_null()
            {
                _ = M::record(new, new_size, align, weight);
            }
            return new;
        }
        // SAFETY:
        // * `new_size` is not zero and makes a layout with this alignment.
        // * The new block is another one than the old one, and both have the smaller of the two sizes.
        // * The old block is live and was allocated with this layout.
        unsafe {
            let new_layout = layout_of(new_size, align);
            let new = match weight {
                Some(weight) => this.alloc_sampled::<false>(new_layout, weight),
                None => this.alloc::<false>(new_layout),
            };
            if !new.is_null() {
                ptr::copy_nonoverlapping(ptr, new, old_size.min(new_size));
                this.dealloc(ptr, layout_of(old_size, align));
            }
            new
        }
    }
}
