//! What the benchmarks share.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// How many instructions counting may add.
pub mod limit {
    /// Returns the limits for an allocation with its deallocation and for a reallocation, over an inner allocator.
    pub fn of(inner: &str) -> (f64, f64) {
        match inner {
            "System" => (18.0, 14.0),
            "Jemalloc" | "MiMalloc" => (20.0, 16.0),
            // An allocator that can take samples, over the same one that cannot.
            _ => (3.0, 4.0),
        }
    }

    /// An allocation of 200 bytes and its deallocation while a heap profile runs at its default mean.
    pub const SAMPLING_PAIR: f64 = 4.0;
    /// A sample with everything that belongs to it.
    pub const SAMPLE: f64 = 10_000.0;
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
