//! `go tool pprof` names a known leak first: of a program as it was built, of one without debug information, and of one whose
//! symbols are stripped with the help of one that has them. CI runs this with optimisation, which leaves no frame pointers.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it expects by panicking"
)]

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::elf::{PT_GNU_EH_FRAME, PT_NULL};
use object::{Object, ObjectSection};
use tempfile::TempDir;

#[path = "../support/skip.rs"]
mod skip;

const PROGRAM: &str = env!("CARGO_BIN_EXE_leaking");

/// Runs a command. `None` if it is not installed.
fn output(program: impl AsRef<OsStr>, arguments: &[&OsStr]) -> Option<String> {
    let output = Command::new(program.as_ref()).args(arguments).output().ok()?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?} {arguments:?}: {error}", program.as_ref());
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Lets a program leak. Returns its heap profile and its output.
fn leak(program: &Path, how: &str, directory: &TempDir) -> (PathBuf, String) {
    let file = directory.path().join(format!("{how}.pb.gz"));
    let output = output(program, &[how.as_ref(), file.as_ref()]).expect("the program runs");
    (file, output)
}

/// Returns the rows of `go tool pprof -top`, the one with the largest share first. `None` without Go.
fn top(profile: &Path, arguments: &[&OsStr]) -> Option<Vec<String>> {
    let all: Vec<&OsStr> = ["tool", "pprof", "-top"]
        .iter()
        .map(AsRef::as_ref)
        .chain(arguments.iter().copied())
        .chain([profile.as_ref()])
        .collect();
    let Some(text) = output("go", &all) else {
        skip::skip("there is no Go");
        return None;
    };
    assert!(text.contains("Type: inuse_space"), "{text}");
    let rows: Vec<_> =
        text.lines().skip_while(|line| !line.contains("flat%")).skip(1).map(str::to_owned).collect();
    assert!(!rows.is_empty(), "{text}");
    Some(rows)
}

fn stripped(how: &str, directory: &TempDir) -> PathBuf {
    let to = directory.path().join("leaking");
    let arguments: [&OsStr; 4] = [how.as_ref(), "-o".as_ref(), to.as_ref(), PROGRAM.as_ref()];
    output("strip", &arguments).expect("linking needs binutils, which has `strip`");
    to
}

/// Checks that a function has at least nine tenths of the memory in the first row.
fn assert_first(rows: &[String], function: &str) {
    let first = &rows[0];
    assert!(first.contains(function), "{rows:#?}");
    let share: f64 =
        first.split_whitespace().find_map(|cell| cell.strip_suffix('%')).unwrap().parse().unwrap();
    assert!(share > 90.0, "{rows:#?}");
}

#[test]
fn a_leak_comes_first() {
    let directory = tempfile::tempdir().unwrap();
    let (direct, said) = leak(PROGRAM.as_ref(), "direct", &directory);
    assert_eq!(said, "");
    let Some(rows) = top(&direct, &[]) else { return };
    assert_first(&rows, "leaking::leak_directly");
}

#[test]
fn a_leak_through_inlined_and_generic_code_comes_first() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, _) = leak(PROGRAM.as_ref(), "cache", &directory);
    let Some(rows) = top(&cache, &[]) else { return };
    // Line tables alone have the names of inlined functions without their paths.
    assert_first(&rows, "remember");
    let caller = rows.iter().find(|row| row.contains("leaking::leak_into_a_cache"));
    assert!(caller.is_some_and(|row| row.contains(" 9") || row.contains("100%")), "{rows:#?}");
    let optimised = !cfg!(debug_assertions);
    assert_eq!(rows[0].contains("(inline)"), optimised, "{rows:#?}");
}

#[test]
fn without_debug_information_the_function_is_named_that_it_is_inlined_into() {
    let directory = tempfile::tempdir().unwrap();
    let program = stripped("--strip-debug", &directory);
    let (cache, _) = leak(&program, "cache", &directory);
    let Some(rows) = top(&cache, &[]) else { return };
    let function = if cfg!(debug_assertions) { "remember" } else { "leaking::leak_into_a_cache" };
    assert_first(&rows, function);
}

#[test]
fn a_stripped_program_says_so_and_is_named_by_one_that_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let program = stripped("--strip-all", &directory);
    let (direct, _) = leak(&program, "direct", &directory);
    let raw = [OsStr::new("tool"), "pprof".as_ref(), "-comments".as_ref(), direct.as_ref()];
    let Some(comments) = output("go", &raw) else { return skip::skip("there is no Go") };
    assert!(comments.contains("has no names"), "{comments}");
    // The build id leads to the program that has names, or the path does.
    let rows = top(&direct, &["-symbolize=force".as_ref(), PROGRAM.as_ref()]).expect("there is Go");
    let cumulated =
        rows.iter().find(|row| row.contains("leak_directly")).unwrap_or_else(|| panic!("{rows:#?}"));
    assert!(cumulated.contains(" 9") || cumulated.contains("100%"), "{rows:#?}");
}

/// Unwind tables are found by a program header.
#[test]
fn a_program_without_unwind_tables_has_no_profile() {
    let mut bytes = std::fs::read(PROGRAM).unwrap();
    let word = |at: usize, len: usize| {
        bytes[at..at + len].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (first, size, count) = (word(32, 8), word(54, 2), word(56, 2));
    let header =
        (0..count).map(|index| first + index * size).find(|at| word(*at, 4) == PT_GNU_EH_FRAME as usize);
    let header = header.expect("the program has unwind tables");
    bytes[header..header + 4].copy_from_slice(&PT_NULL.to_le_bytes());
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("without_tables");
    std::fs::write(&program, bytes).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (_, said) = leak(&program, "direct", &directory);
    assert!(said.contains("error: ") && said.contains("unwind tables"), "{said}");
    assert!(said.contains("empty: no heap profile runs"), "{said}");
}

/// Profilers outside the process find the probes by notes (the format of SystemTap).
#[test]
fn probes_are_one_nop_each_with_a_note() {
    let bytes = std::fs::read(PROGRAM).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let mut notes = file.section_by_name(".note.stapsdt").expect("notes").data().unwrap();
    let mut found = Vec::new();
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    while !notes.is_empty() {
        let (name, len, kind) = (word(notes, 0), word(notes, 4), word(notes, 8));
        assert_eq!((&notes[12..12 + name], kind), (&b"stapsdt\0"[..], 3));
        let start = 12 + name.next_multiple_of(4);
        let content = &notes[start..start + len];
        let address = u64::from_le_bytes(content[..8].try_into().unwrap());
        let texts: Vec<_> = content[24..].split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let [provider, probe, arguments] = [0, 1, 2].map(|index| texts[index].clone().into_owned());
        assert_eq!(provider, "otel_memory");
        // The code at the probe.
        let text = file
            .sections()
            .find(|section| (section.address()..section.address() + section.size()).contains(&address))
            .unwrap();
        let at = (address - text.address()) as usize;
        let nop: &[u8] = if cfg!(target_arch = "x86_64") { &[0x90] } else { &[0x1f, 0x20, 0x03, 0xd5] };
        assert_eq!(&text.data().unwrap()[at..at + nop.len()], nop, "{probe}");
        let register = if cfg!(target_arch = "x86_64") { "8@%r" } else { "8@x" };
        assert!(arguments.split(' ').all(|argument| argument.starts_with(register)), "{arguments}");
        found.push((probe, arguments.split(' ').count()));
        notes = &notes[start + len.next_multiple_of(4)..];
    }
    found.sort();
    found.dedup();
    assert_eq!(found, [("alloc".to_owned(), 3), ("free".to_owned(), 1)]);
}
