//! The number that stands for a task's name, and the origin of the name.

/// The number of a name: 0 is `_OTHER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameId(u32);

impl NameId {
    pub(crate) const OTHER: NameId = NameId(0);

    pub(crate) fn new(index: usize) -> Self {
        u32::try_from(index).map_or(NameId::OTHER, NameId)
    }

    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    /// Encodes an optional name as a number that fits an atomic.
    #[inline]
    pub(crate) fn encode(name: Option<NameId>) -> u32 {
        name.map_or(0, |name| name.0.wrapping_add(1))
    }

    /// Reverses [`encode`](Self::encode).
    #[inline]
    pub(crate) fn decode(code: u32) -> Option<NameId> {
        code.checked_sub(1).map(NameId)
    }
}

/// The origin of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameOrigin {
    /// The program.
    Program,
    #[cfg_attr(not(tokio_unstable), allow(dead_code, reason = "only hooks name tasks by it"))]
    /// Tokio's spawn hook: the name is the source location of the spawn.
    Location,
}
