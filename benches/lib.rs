//! The limits and the call of callgrind that benchmarks share.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

pub mod rmw;

/// The instructions that counting and sampling may add.
pub mod limit {
    /// The added instructions of an allocation with its deallocation, and of a reallocation.
    #[derive(Clone, Copy)]
    pub struct Limit {
        /// The wanted figures. A higher one is printed as a miss.
        pub aim: (f64, f64),
        /// The present figures with some room. A higher one fails the benchmark.
        pub bound: (f64, f64),
    }

    /// Returns the limit over an inner allocator, or over the same counting allocator that takes no samples.
    pub fn of(inner: &str) -> Limit {
        let met = |aim| Limit { aim, bound: aim };
        match inner {
            "System" => met((18.0, 14.0)),
            "Jemalloc" => met((20.0, 16.0)),
            // It measures 20.0, which is within the aim by less than a build may differ.
            "MiMalloc" => Limit { aim: (20.0, 16.0), bound: (21.0, 17.0) },
            _ => met((3.0, 4.0)),
        }
    }

    /// The limit for an allocation of 200 bytes and its deallocation while a heap profile runs at its default mean.
    pub const SAMPLING_PAIR: f64 = 4.0;
    /// The limit for a sample with everything that belongs to it.
    pub const SAMPLE: f64 = 10_000.0;
}

/// Runs a program under callgrind and returns its instructions and its output, or `None` without valgrind.
pub fn callgrind(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Option<(f64, String)> {
    callgrind_with(program, arguments, &[])
}

/// Runs a program under callgrind, with these environment variables too.
pub fn callgrind_with(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    variables: &[(&str, &str)],
) -> Option<(f64, String)> {
    callgrind_by(&["--callgrind-out-file=/dev/null"], program, arguments, variables)
}

/// Runs a program under callgrind, with these options of callgrind's.
pub fn callgrind_by(
    options: &[impl AsRef<OsStr>],
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    variables: &[(&str, &str)],
) -> Option<(f64, String)> {
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--tool=callgrind").args(options).arg(program).args(arguments);
    let output = valgrind.envs(variables.iter().copied()).output().ok()?;
    let report = String::from_utf8_lossy(&output.stderr);
    let (_, after) = report.split_once("Collected :")?;
    let instructions = after.split_whitespace().next()?.parse().ok()?;
    Some((instructions, String::from_utf8_lossy(&output.stdout).into_owned()))
}
