//! Programs of this workspace that a test runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Runs `cargo build` with these arguments and returns the directory of the programs. If the whole suite was built, there is
/// nothing left to build.
#[track_caller]
pub fn build(arguments: &[&str]) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = Command::new(cargo)
        .arg("build")
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    // A test is target/debug/deps/NAME-...
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
}

/// Builds an example of the library with all features on.
#[track_caller]
pub fn example(name: &str) -> PathBuf {
    build(&["--all-features", "--example", name]).join("examples").join(name)
}
