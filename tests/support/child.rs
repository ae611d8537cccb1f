//! Runs a test of this program in a child process, since the environment belongs to all threads.

use std::fmt::Display;
use std::process::Command;

/// Returns a command that runs one of the ignored tests, without the variables that an exporter reads.
pub fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    let is_read = |name: &str| {
        name.starts_with("OTEL_")
            || name.to_ascii_uppercase().ends_with("_PROXY")
            || name.starts_with("SSL_CERT_")
    };
    for (name, _) in std::env::vars().filter(|(name, _)| is_read(name)) {
        command.env_remove(name);
    }
    command
}

/// Runs the child and returns the lines that it prints after `RESULT `.
#[track_caller]
pub fn results(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let results: Vec<_> =
        text.lines().filter_map(|line| line.split("RESULT ").nth(1)).map(str::to_owned).collect();
    assert!(!results.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    results
}

/// Runs `child_exports_once` with these variables and returns the lines that it prints after `RESULT `.
#[track_caller]
pub fn export_once(variables: &[(&str, &str)]) -> Vec<String> {
    results(child("child_exports_once").envs(variables.iter().copied()))
}

/// Returns `delivered`, or the error.
pub fn outcome(result: Result<(), impl Display>) -> String {
    result.map_or_else(|error| error.to_string(), |()| "delivered".to_owned())
}

/// Prints the outcome for [`results`].
pub fn report(result: Result<(), impl Display>) {
    println!("RESULT {}", outcome(result));
}
