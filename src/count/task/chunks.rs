//! A list that grows without moving its elements, so that readers need no lock.

use std::sync::OnceLock;

/// Elements by index. They are allocated in chunks that double in size: a few elements cost little, and each of many is
/// found by arithmetic.
pub(crate) struct Chunks<T>([OnceLock<Box<[T]>>; Chunks::<()>::COUNT]);

impl Chunks<()> {
    const FIRST: usize = 8;
    const COUNT: usize = 13;
    /// The largest number of elements.
    pub(crate) const CAPACITY: usize = Self::FIRST * ((1 << Self::COUNT) - 1);

    /// Returns the chunk that holds an element, and the element's index in it.
    #[inline]
    fn locate(index: usize) -> (usize, usize) {
        let from_first = index + Self::FIRST;
        let chunk = (from_first / Self::FIRST).ilog2() as usize;
        (chunk, from_first - (Self::FIRST << chunk))
    }
}

impl<T> Chunks<T> {
    pub(crate) const fn new() -> Self {
        Chunks([const { OnceLock::new() }; Chunks::<()>::COUNT])
    }

    /// Returns an element if its chunk has been allocated. It neither locks nor allocates: a signal handler may call it.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        let (chunk, index) = Chunks::locate(index);
        self.0.get(chunk)?.get()?.get(index)
    }

    /// Returns an element and allocates its chunk first if necessary. `None` beyond the capacity.
    pub(crate) fn get_or_allocate(&self, index: usize, new: impl Fn() -> T) -> Option<&T> {
        let (chunk, _) = Chunks::locate(index);
        self.0.get(chunk)?.get_or_init(|| (0..Chunks::FIRST << chunk).map(|_| new()).collect());
        self.get(index)
    }
}
