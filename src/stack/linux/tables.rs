//! Holds the bytes of unwind tables.

use std::ops::Deref;
use std::sync::Arc;

/// The unwind tables of one object.
#[derive(Clone)]
pub(super) enum Tables {
    /// The executable's, in place: it is never unloaded.
    InPlace(&'static [u8]),
    /// A library's: copied, since it may be unloaded while a thread walks.
    Copied(Arc<[u8]>),
}

impl Deref for Tables {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Tables::InPlace(bytes) => bytes,
            Tables::Copied(bytes) => bytes,
        }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Tables::InPlace(&[])
    }
}
