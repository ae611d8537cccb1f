//! What the benchmarks share.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// How many instructions counting may cost.
pub mod limit {
    /// An allocation and its deallocation.
    pub const PAIR: f64 = 18.0;
    /// A reallocation.
    pub const REALLOC: f64 = 14.0;
}

/// Runs a program under callgrind: its instructions, and what it printed. `None` where there is no valgrind.
pub fn callgrind(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Option<(f64, String)> {
    let valgrind = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let output = Command::new("valgrind").args(valgrind).arg(program).args(arguments).output().ok()?;
    let told = String::from_utf8_lossy(&output.stderr);
    let (_, after) = told.split_once("Collected :")?;
    let instructions = after.split_whitespace().next()?.parse().ok()?;
    Some((instructions, String::from_utf8_lossy(&output.stdout).into_owned()))
}
