//! The allocator in other kinds of programs. Cargo builds them with the tests, as examples.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "loads a library that is in plain sight")]

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

/// Where Cargo puts what it builds for this test.
fn beside(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples").join(name)
}

/// A program beside this test, unless only this test was built.
fn built(name: &str) -> Option<PathBuf> {
    let path = beside(name);
    if !path.exists() {
        eprintln!("skipped: {name} is not built; `cargo test` without `--test`, or with `--examples`, does");
        return None;
    }
    Some(path)
}

#[test]
fn a_program_without_tokio() {
    let Some(program) = built("plain") else { return };
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"counted\n");
}

#[test]
fn a_shared_library_counts_for_itself() {
    // Without the feature `jemalloc`, whose thread-locals are for programs and for libraries that are loaded at their start.
    let build = Command::new(env!("CARGO"))
        .args(["build", "--no-default-features", "--example", "library"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let library = beside(&format!("{DLL_PREFIX}library{DLL_SUFFIX}"));
    let path = CString::new(library.as_os_str().as_bytes()).unwrap();
    let bytes_counted = unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null(), "{:?}", std::ffi::CStr::from_ptr(libc::dlerror()));
        let symbol = libc::dlsym(handle, c"bytes_counted".as_ptr());
        assert!(!symbol.is_null());
        std::mem::transmute::<*mut libc::c_void, extern "C" fn(usize) -> u64>(symbol)
    };
    assert_eq!(bytes_counted(1_234), 1_234);
    // A thread that the library did not start, and that ends.
    std::thread::spawn(move || assert_eq!(bytes_counted(100_000), 100_000)).join().unwrap();
    assert_eq!(bytes_counted(1), 1);
}
