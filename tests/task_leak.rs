//! The example finds its leak, by name and, under the hooks, by line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

#[test]
fn it_names_the_one_kind_of_task_that_leaks() {
    // This test is target/debug/deps/task_leak-..., and Cargo builds the examples together with the tests.
    let test = std::env::current_exe().unwrap();
    let example = test.ancestors().nth(2).unwrap().join("examples/task_leak");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--all-features", "--example", "task_leak"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.unwrap().success());
    let output = Command::new(example).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let leaks: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("leaks: ")).collect();
    let source = include_str!("../examples/task_leak.rs");
    let line =
        source.lines().position(|line| line == "    tokio::spawn(notify(service.shutdown.subscribe()));");
    let place = format!("examples/task_leak.rs:{}", line.unwrap() + 1);
    let expected: &[&str] = if cfg!(tokio_unstable) { &["notify", &place] } else { &["notify"] };
    assert_eq!(leaks, expected, "{text}");
}
