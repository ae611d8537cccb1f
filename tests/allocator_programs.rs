//! The allocator in other kinds of programs.

#![cfg(unix)]

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use support::built;

#[test]
fn a_program_without_tokio() {
    let program = built::build(&["-p", "programs"]).join("plain");
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"counted\n");
}

#[test]
fn a_shared_library_counts_for_itself() {
    // Without the feature `jemalloc`: its thread-locals work only in programs and in libraries that are loaded at the start.
    let library = built::build(&["-p", "programs"]).join(format!("{DLL_PREFIX}library{DLL_SUFFIX}"));
    let path = CString::new(library.as_os_str().as_bytes()).unwrap();
    let bytes_counted = unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null(), "{:?}", std::ffi::CStr::from_ptr(libc::dlerror()));
        let symbol = libc::dlsym(handle, c"bytes_counted".as_ptr());
        assert!(!symbol.is_null());
        std::mem::transmute::<*mut libc::c_void, extern "C" fn(usize) -> u64>(symbol)
    };
    assert_eq!(bytes_counted(1_234), 1_234);
    // A thread of the program, which ends.
    std::thread::spawn(move || assert_eq!(bytes_counted(100_000), 100_000)).join().unwrap();
    assert_eq!(bytes_counted(1), 1);
}
