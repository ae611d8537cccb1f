//! The heap profile in a program that loads and unloads a library, with and without unwind tables.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it expects by panicking"
)]
#![allow(unsafe_code, reason = "loads a library and calls its function")]

use std::alloc::System;
use std::ffi::{CStr, CString, c_void};
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile, Profile};
use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};
use support::built;

#[global_allocator]
static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

type CallBack = extern "C" fn(extern "C" fn(usize), usize);

/// A library that is loaded.
struct Library {
    handle: *mut c_void,
    call_back: CallBack,
}

impl Library {
    fn load(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the library has no constructors, and the function has this type.
        unsafe {
            let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
            assert!(!handle.is_null(), "{:?}", CStr::from_ptr(libc::dlerror()));
            let symbol = libc::dlsym(handle, c"call_back".as_ptr());
            assert!(!symbol.is_null());
            Library { handle, call_back: std::mem::transmute::<*mut c_void, CallBack>(symbol) }
        }
    }

    fn unload(self) {
        // SAFETY: no code of the library runs.
        assert_eq!(unsafe { libc::dlclose(self.handle) }, 0);
    }
}

extern "C" fn allocates_under_the_library(size: usize) {
    let kept = vec![1_u8; size];
    assert!(black_box(&kept).iter().all(|byte| *byte == 1));
    std::mem::forget(kept);
}

/// Returns the folded stack of the block of this size that was allocated under the library since. A library that
/// comes back may lie where another one was, so that equal stacks are not of the same block.
fn stack_since(before: &Profile, size: usize) -> String {
    let folded = profile::allocs().delta(before).to_folded();
    let is_one =
        |line: &&str| line.contains("allocates_under_the_library") && line.ends_with(&format!(" {size}"));
    let stacks: Vec<_> = folded.lines().filter(is_one).collect();
    assert_eq!(stacks.len(), 1, "{size} in {folded:#?}");
    stacks.concat()
}

fn is_whole(stack: &str) -> bool {
    !stack.contains("[frames cut off]") && stack.contains("libraries_come_and_go")
}

/// Returns the path of a copy without the header by which unwind tables are found.
fn without_tables(library: &Path, directory: &Path) -> PathBuf {
    const UNWIND_TABLES: u32 = 0x6474_e550;
    let mut bytes = std::fs::read(library).unwrap();
    let number = |bytes: &[u8], at: usize, len: usize| {
        bytes[at..at + len].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (first, size, count) = (number(&bytes, 32, 8), number(&bytes, 54, 2), number(&bytes, 56, 2));
    let mut headers = (0..count).map(|index| first + index * size);
    let header = headers.find(|at| number(&bytes, *at, 4) == UNWIND_TABLES as usize).expect("unwind tables");
    bytes[header..header + 4].fill(0);
    let copy = directory.join("without_tables.so");
    std::fs::write(&copy, bytes).unwrap();
    copy
}

#[test]
fn libraries_come_and_go() {
    let path = built::build(&["-p", "programs"]).join("liblibrary.so");
    let directory = tempfile::tempdir().unwrap();
    // A block of 100 000 bytes is sampled with certainty.
    let heap_profile = HeapProfile::start(1_000).unwrap();

    // Loaded after the start: the stack ends in the library until the next look at the profile.
    let before = profile::allocs();
    let library = Library::load(&path);
    (library.call_back)(allocates_under_the_library, 100_001);
    let unknown = stack_since(&before, 100_001);
    assert!(unknown.starts_with("[frames cut off];"), "{unknown}");
    let before = profile::allocs();
    (library.call_back)(allocates_under_the_library, 100_002);
    let known = stack_since(&before, 100_002);
    assert!(is_whole(&known) && known.contains("call_back;"), "{known}");

    // Gone, and back again, perhaps at another address.
    library.unload();
    let before = profile::allocs();
    allocates_under_the_library(100_003);
    let without = stack_since(&before, 100_003);
    assert!(is_whole(&without), "{without}");
    let library = Library::load(&path);
    let before = profile::allocs();
    (library.call_back)(allocates_under_the_library, 100_004);
    let again = stack_since(&before, 100_004);
    assert!(is_whole(&again) && again.contains("call_back;"), "{again}");
    library.unload();

    // Nothing can be known beyond a library without tables, and nothing is invented.
    let library = Library::load(&without_tables(&path, directory.path()));
    let before = profile::allocs();
    (library.call_back)(allocates_under_the_library, 100_005);
    let cut = stack_since(&before, 100_005);
    assert!(cut.starts_with("[frames cut off];"), "{cut}");
    library.unload();
    assert_eq!(profile::heap().error(), None);
    heap_profile.stop();
}
