//! The dependencies of the library without features.

use std::process::Command;

/// Returns the names of the crates that the library depends on, down to a depth.
fn dependencies(depth: &str) -> Vec<String> {
    let output = Command::new(std::env::var_os("CARGO").expect("Cargo runs the tests"))
        .args([
            "tree",
            "--offline",
            "--package",
            "opentelemetry-instrumentation-runtime",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--no-dedupe",
        ])
        .args(["--format", "{lib}", "--depth", depth])
        .current_dir(support::built::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut names: Vec<_> = String::from_utf8(output.stdout)
        .expect("names are text")
        .lines()
        .skip(1)
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn without_features_the_library_needs_only_the_api_crate_tokio_and_libc() {
    // Tokio depends on pin-project-lite too, which saves the library from pinning with `unsafe`.
    assert_eq!(dependencies("1"), ["libc", "opentelemetry", "pin_project_lite", "tokio"]);
    let all = dependencies("9");
    // Under `tokio_unstable` Tokio's `net` is on, for the getters of the I/O driver.
    let of_net = ["mio", "socket2"];
    let without_net: Vec<_> =
        all.iter().filter(|name| !cfg!(tokio_unstable) || !of_net.contains(&name.as_str())).collect();
    assert_eq!(without_net, ["libc", "opentelemetry", "pin_project_lite", "tokio"]);
}
