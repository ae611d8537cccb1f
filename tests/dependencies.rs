//! The dependencies of the library, without features and with each of them.

use std::collections::BTreeSet;
use std::process::Command;

/// Returns the crates that the library depends on with some features, down to a depth, in a format of `cargo tree`.
fn dependencies(features: &str, depth: &str, format: &str) -> BTreeSet<String> {
    let output = Command::new(std::env::var_os("CARGO").expect("Cargo runs the tests"))
        .args(["tree", "--offline", "--package", "opentelemetry-instrumentation-runtime"])
        .args(["--edges", "normal", "--prefix", "none", "--no-dedupe"])
        .args(["--features", features, "--format", format, "--depth", depth])
        .current_dir(support::built::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = String::from_utf8(output.stdout).expect("names are text");
    output.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn without_features_the_library_needs_only_the_api_crate_tokio_and_libc() {
    // Tokio depends on pin-project-lite too, which saves the library from pinning with `unsafe`.
    let expected = ["libc", "opentelemetry", "pin_project_lite", "tokio"];
    let names = |depth| dependencies("", depth, "{lib}");
    assert!(names("1").iter().eq(&expected), "{:?}", names("1"));
    let all = names("9");
    // Under `tokio_unstable` Tokio's `net` is on, for the getters of the I/O driver.
    let of_net = ["mio", "socket2"];
    let without_net: Vec<_> =
        all.iter().filter(|name| !cfg!(tokio_unstable) || !of_net.contains(&name.as_str())).collect();
    assert_eq!(without_net, expected);
}

/// Under `tokio_unstable` and on other systems the numbers differ.
#[cfg(all(target_os = "linux", not(tokio_unstable)))]
#[test]
fn the_readme_has_the_number_of_crates_of_each_feature() {
    let readme = std::fs::read_to_string(support::built::root().join("README.md")).expect("a README");
    let rows = readme.lines().skip_while(|line| !line.starts_with("| feature | adds | crates"));
    let mut compared = 0;
    for row in rows.skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let mut features: Vec<_> = cells[1].split('`').skip(1).step_by(2).collect();
        if features.is_empty() {
            features.push("");
        }
        let numbers = cells[3].split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
        let numbers: Vec<usize> = numbers.map(|number| number.parse().expect("a number")).collect();
        let more = if cells[3].starts_with("with `otlp`") { ",otlp" } else { "" };
        let crates = |feature: &&str| dependencies(&format!("{feature}{more}"), "99", "{p}").len() + 1;
        assert_eq!(numbers, features.iter().map(crates).collect::<Vec<_>>(), "{row}");
        compared += numbers.len();
    }
    assert!(compared > 15, "{compared} numbers");
}
