//! Loads the list of objects in memory with their unwind tables.

#![allow(unsafe_code, reason = "the loader hands out raw pointers to headers in memory")]

use std::ffi::{CStr, OsStr};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, Module, MustNotAllocateDuringUnwind, Unwinder,
    UnwinderNative,
};

use super::sound::{UnwindTables, rows};
use super::tables::Tables;
use crate::stack::types::Object;

/// The numbers of objects that the loader has added and removed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) added: u64,
    pub(super) removed: u64,
}

/// The memory that the unwinder needs, and what it remembers.
pub(super) type UnwinderCache = CacheNative<MustNotAllocateDuringUnwind>;

/// The objects in memory, as they were when this was loaded.
pub(super) struct Modules {
    pub(super) unwinder: UnwinderNative<Tables, MustNotAllocateDuringUnwind>,
    /// Sorted by address.
    pub(super) objects: Vec<Object>,
    tables: Vec<UnwindTables>,
    pub(super) version: Version,
    /// The number of this list. No other one has it.
    pub(super) id: u64,
}

static LAST_ID: AtomicU64 = AtomicU64::new(0);

impl Modules {
    fn new() -> Self {
        Modules {
            unwinder: UnwinderNative::new(),
            objects: Vec::new(),
            tables: Vec::new(),
            version: Version::default(),
            id: LAST_ID.fetch_add(1, Relaxed) + 1,
        }
    }

    /// Reads the loader's list. Its lock is held meanwhile, so that no library goes away.
    pub(super) fn load() -> Self {
        let mut modules = Modules::new();
        // SAFETY: the callback gets this pointer and no other one, and only during the call.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut modules).cast()) };
        modules.objects.sort_by_key(|object| object.code.start);
        modules
    }

    /// Returns true if an address lies in code that can be walked through.
    #[inline]
    pub(super) fn is_walkable(&self, address: usize) -> bool {
        crate::stack::types::object_of(&self.objects, address).is_some_and(|object| object.is_walkable)
    }

    /// Returns where the function begins that an address lies in.
    pub(super) fn function_start(&self, address: usize) -> Option<usize> {
        // The function belongs to the index that knows the nearest one before it.
        self.tables.iter().filter_map(|tables| tables.function_start(address)).max()
    }

    /// Returns true if the unwinder can leave a frame, in whose code it will read the tables.
    pub(super) fn is_sound(&self, frame: FrameAddress) -> bool {
        let address = frame.address_for_lookup() as usize;
        self.tables
            .iter()
            .find(|tables| tables.code.contains(&address))
            .is_some_and(|tables| tables.is_sound(frame))
    }

    fn add(&mut self, image: &Image<'_>, is_executable: bool, path: PathBuf) {
        let Some((code, file_offset)) = image.code() else { return };
        let tables = image.tables(code.clone(), is_executable);
        self.objects.push(Object {
            code: code.clone(),
            bias: image.bias,
            file_offset,
            path: (!is_executable).then_some(path),
            build_id: image.build_id().unwrap_or_default().into(),
            is_walkable: tables.is_some(),
        });
        if let Some(tables) = tables {
            let range = code.start as u64..code.end as u64;
            let sections = ExplicitModuleSectionInfo {
                eh_frame_svma: Some(
                    tables.frames_address..tables.frames_address + tables.frames.len() as u64,
                ),
                eh_frame: Some(tables.frames.clone()),
                eh_frame_hdr_svma: Some(
                    tables.index_address..tables.index_address + tables.index.len() as u64,
                ),
                eh_frame_hdr: Some(tables.index.clone()),
                ..Default::default()
            };
            self.unwinder.add_module(Module::new(String::new(), range, image.bias as u64, sections));
            self.tables.push(tables);
        }
    }
}

/// Returns how often the loader's list has changed.
pub(super) fn version() -> Version {
    let mut version = Version::default();
    // SAFETY: the callback gets this pointer and no other one, and only during the call.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut version).cast()) };
    version
}

/// # Safety
/// The loader calls it, with a `Modules` of the caller's.
unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, data: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the loader passes valid headers, and hands the caller's pointer through.
    let (info, modules) = unsafe { (&*info, &mut *data.cast::<Modules>()) };
    modules.version = version_of(info);
    let (start, count) = (info.dlpi_phdr, usize::from(info.dlpi_phnum));
    if start.is_null() {
        return 0;
    }
    // SAFETY: the loader says that so many headers are there, and keeps them during the call.
    let headers = unsafe { slice::from_raw_parts(start, count) };
    let name = if info.dlpi_name.is_null() {
        c""
    } else {
        // SAFETY: the loader passes a string that ends with a zero, and keeps it during the call.
        unsafe { CStr::from_ptr(info.dlpi_name) }
    };
    // The loader lists the executable first.
    let is_executable = modules.objects.is_empty();
    let path = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
    modules.add(&Image { bias: info.dlpi_addr as usize, headers }, is_executable, path);
    0
}

/// # Safety
/// The loader calls it, with a `Version` of the caller's.
unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, data: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the loader passes valid headers, and hands the caller's pointer through.
    unsafe { *data.cast::<Version>() = version_of(&*info) };
    1
}

fn version_of(info: &libc::dl_phdr_info) -> Version {
    Version { added: info.dlpi_adds, removed: info.dlpi_subs }
}

/// An object as it lies in memory.
struct Image<'a> {
    bias: usize,
    headers: &'a [libc::Elf64_Phdr],
}

impl Image<'_> {
    fn segments(&self, kind: u32) -> impl Iterator<Item = &libc::Elf64_Phdr> {
        self.headers.iter().filter(move |header| header.p_type == kind)
    }

    /// The addresses of the code, and where it begins in the file.
    fn code(&self) -> Option<(Range<usize>, usize)> {
        let executable = || self.segments(libc::PT_LOAD).filter(|header| header.p_flags & libc::PF_X != 0);
        let first = executable().min_by_key(|header| header.p_vaddr)?;
        let end = executable().map(|header| header.p_vaddr.wrapping_add(header.p_memsz)).max()?;
        let range = self.address(first.p_vaddr)..self.address(end);
        (range.start < range.end).then_some((range, first.p_offset as usize))
    }

    fn address(&self, stated: u64) -> usize {
        self.bias.wrapping_add(stated as usize)
    }

    /// The bytes from a stated address to the end of its segment, or fewer.
    fn bytes(&self, stated: u64, at_most: Option<u64>) -> Option<&[u8]> {
        let holds = |header: &&libc::Elf64_Phdr| {
            header.p_flags & libc::PF_R != 0
                && (header.p_vaddr..header.p_vaddr.saturating_add(header.p_filesz)).contains(&stated)
        };
        let segment = self.segments(libc::PT_LOAD).find(holds)?;
        let length = segment.p_vaddr + segment.p_filesz - stated;
        let length = at_most.map_or(length, |most| most.min(length)) as usize;
        // SAFETY: the loader has mapped this segment so that it can be read, and keeps it there for as long as the headers
        // are borrowed. Nothing writes to tables and notes.
        Some(unsafe {
            slice::from_raw_parts(std::ptr::with_exposed_provenance(self.address(stated)), length)
        })
    }

    fn tables(&self, code: Range<usize>, is_executable: bool) -> Option<UnwindTables> {
        let header = self.segments(libc::PT_GNU_EH_FRAME).next()?;
        let index = self.bytes(header.p_vaddr, Some(header.p_memsz))?;
        let frames_address = frames_address(header.p_vaddr, index)?;
        rows(index)?;
        let frames = self.bytes(frames_address, None)?;
        let keep = |bytes: &[u8]| {
            if is_executable {
                // SAFETY: the executable's segments are mapped until the process ends.
                Tables::InPlace(unsafe { slice::from_raw_parts(bytes.as_ptr(), bytes.len()) })
            } else {
                Tables::Copied(bytes.into())
            }
        };
        Some(UnwindTables {
            code,
            bias: self.bias,
            index_address: header.p_vaddr,
            index: keep(index),
            frames_address,
            frames: keep(frames),
        })
    }

    fn build_id(&self) -> Option<&[u8]> {
        self.segments(libc::PT_NOTE).find_map(|note| build_id(self.bytes(note.p_vaddr, Some(note.p_memsz))?))
    }
}

/// Returns the stated address of `.eh_frame`, which `.eh_frame_hdr` begins with.
fn frames_address(index_address: u64, index: &[u8]) -> Option<u64> {
    // Every linker writes version 1, four bytes relative to their own place, a table to search.
    const VERSION: u8 = 1;
    const RELATIVE_32: u8 = 0x1b;
    const OMITTED: u8 = 0xff;
    let [VERSION, RELATIVE_32, _, table] = *index.first_chunk()? else { return None };
    let distance = i32::from_le_bytes(*index.get(4..)?.first_chunk()?);
    (table != OMITTED).then(|| (index_address + 4).wrapping_add_signed(distance.into()))
}

/// Finds the build id in a segment of notes.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const BUILD_ID: u32 = 3;
    loop {
        let word =
            |at: usize| Some(u32::from_le_bytes(*notes.get(at..)?.first_chunk()?)).map(|word| word as usize);
        let (name_length, length, kind) = (word(0)?, word(4)?, word(8)?);
        let start = name_length.checked_next_multiple_of(4)?.checked_add(12)?;
        let end = start.checked_add(length)?;
        if kind == BUILD_ID as usize && notes.get(12..12 + name_length)? == b"GNU\0" {
            return notes.get(start..end);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_and_its_libraries_are_listed() {
        let modules = Modules::load();
        assert!(modules.is_walkable(the_executable_and_its_libraries_are_listed as fn() as usize));
        assert!(modules.is_walkable(libc::abs as unsafe extern "C" fn(i32) -> i32 as usize));
        assert!(!modules.is_walkable((&raw const modules).addr()));
        assert!(modules.objects.iter().filter(|object| object.path.is_none()).count() == 1);
        assert_eq!(modules.version, version());
        assert!(modules.objects.is_sorted_by_key(|object| object.code.start));
    }

    #[test]
    fn the_tables_of_this_program_and_its_libraries_are_sound() {
        let modules = Modules::load();
        let (mut sound, mut unsound) = (0, 0);
        for tables in &modules.tables {
            let place = (tables.bias as u64).wrapping_add(tables.index_address);
            for row in rows(&tables.index).unwrap_or_default().iter().step_by(7) {
                let start = i32::from_le_bytes(*row.first_chunk().unwrap());
                let start = place.wrapping_add_signed(start.into());
                match modules.is_sound(FrameAddress::from_instruction_pointer(start)) {
                    true => sound += 1,
                    false => unsound += 1,
                }
            }
        }
        println!("{sound} sound functions, {unsound} unsound ones");
        assert!(sound > 1000 && unsound * 1000 < sound, "{sound} sound functions, {unsound} unsound ones");
    }

    #[test]
    fn a_build_id_is_found_among_notes_and_not_outside_them() {
        let mut notes = Vec::new();
        for (kind, name, content) in [(1_u32, b"GNU\0", &[1_u8, 2, 3][..]), (3, b"GNU\0", &[7; 20])] {
            notes.extend([4_u32, content.len() as u32, kind].map(u32::to_le_bytes).concat());
            notes.extend_from_slice(name);
            notes.extend_from_slice(content);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(build_id(&notes), Some(&[7; 20][..]));
        for end in 0..notes.len() {
            assert_eq!(build_id(&notes[..end]), None, "{end}");
        }
        assert_eq!(build_id(&[0xff; 40]), None);
    }

    #[test]
    fn an_index_that_is_not_understood_has_no_frames() {
        let index = [1, 0x1b, 3, 0x3b, 0xf8, 0xff, 0xff, 0xff];
        assert_eq!(frames_address(0x1000, &index), Some(0x1004 - 8));
        for (at, other) in [(0, 2), (1, 0), (3, 0xff)] {
            let mut index = index;
            index[at] = other;
            assert_eq!(frames_address(0x1000, &index), None);
        }
        assert_eq!(frames_address(0x1000, &index[..7]), None);
    }
}
