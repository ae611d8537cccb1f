//! The second type parameter of `CountingAllocator`: whether it can take samples for the heap profile.

#[cfg(feature = "profile")]
use super::samples;

/// Implemented by [`Unsampled`] and [`Sampled`]. The allocator asks it about every block that may be a sample.
///
/// The provided methods are those of an allocator that takes no samples.
pub trait Mode: Copy + 'static {
    /// True if allocations can be sampled.
    const IS_SAMPLED: bool = false;

    /// Records a block as a sample. `align` is the alignment that the inner allocator was asked for. Returns false if there
    /// is no place for it.
    fn record(_ptr: *mut u8, _size: usize, _align: usize, _weight: f64) -> bool {
        false
    }

    /// Returns the alignment that the inner allocator was asked for, if a block is a sample.
    fn align_of(_ptr: *mut u8) -> Option<usize> {
        None
    }

    /// Takes a block out of the samples, if it is one. [`end`](Self::end) or [`put_back`](Self::put_back) has to follow.
    fn take(_ptr: *mut u8) -> Option<Taken> {
        None
    }

    /// Ends a sample whose block is freed.
    fn end(_ptr: *mut u8, _taken: &Taken) {}

    /// Puts a sample back whose block is still alive.
    fn put_back(_ptr: *mut u8, _taken: &Taken) {}
}

/// A sample that was taken out.
pub struct Taken {
    /// The alignment that the inner allocator was asked for.
    pub(super) align: usize,
    #[cfg(feature = "profile")]
    sample: samples::Taken,
}

/// The default of [`CountingAllocator`](crate::CountingAllocator): it counts, and takes no samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unsampled;

impl Mode for Unsampled {}

/// Lets a [`CountingAllocator`](crate::CountingAllocator) take samples while a
/// [`HeapProfile`](crate::profile::HeapProfile) runs. Made by
/// [`CountingAllocator::sampled`](crate::CountingAllocator::sampled).
#[cfg(feature = "profile")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Sampled;

#[cfg(feature = "profile")]
impl Mode for Sampled {
    const IS_SAMPLED: bool = true;

    fn record(ptr: *mut u8, size: usize, align: usize, weight: f64) -> bool {
        samples::record(ptr, size, align, weight)
    }

    fn align_of(ptr: *mut u8) -> Option<usize> {
        samples::align_of(ptr)
    }

    #[inline(always)]
    fn take(ptr: *mut u8) -> Option<Taken> {
        samples::take(ptr).map(|sample| Taken { align: sample.align(), sample })
    }

    fn end(ptr: *mut u8, taken: &Taken) {
        samples::end(ptr, &taken.sample);
    }

    fn put_back(ptr: *mut u8, taken: &Taken) {
        samples::put_back(ptr, &taken.sample);
    }
}
