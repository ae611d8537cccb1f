//! Reads the file of an object in memory.

#![allow(unsafe_code, reason = "a mapping is read as if nothing could change it")]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::stack::Object;

/// A file that is mapped, not read: its symbol table alone can have tens of thousands of names, which the program's allocator
/// would count.
pub(super) struct ObjectFile(Mmap);

impl ObjectFile {
    /// Returns `None` if the file cannot be opened or mapped.
    pub(super) fn open(object: &Object) -> Option<Self> {
        let file = File::open(path_of(object)).ok()?;
        // SAFETY: the file is mapped as code, too, so that a program does not survive a change in it in any case. Changed
        // bytes are read as numbers and names, and the parser checks their bounds.
        let bytes = unsafe { Mmap::map(&file) }.ok()?;
        Some(ObjectFile(bytes))
    }

    /// Returns `None` if the file has another format.
    pub(super) fn parse(&self) -> Option<object::File<'_>> {
        object::File::parse(&*self.0).ok()
    }
}

/// Returns the path of an object's file. The program's own has no path.
pub(super) fn path_of(object: &Object) -> &Path {
    object.path.as_deref().unwrap_or(Path::new("/proc/self/exe"))
}
