//! A test of this program in a process of its own, since the environment belongs to all threads.

use std::process::Command;

/// Runs one of the ignored tests, with no variable that an exporter reads but those that are added.
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

/// What the child printed after `RESULT `, a line for each.
#[track_caller]
pub fn results(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let results: Vec<_> =
        text.lines().filter_map(|line| line.split("RESULT ").nth(1)).map(str::to_owned).collect();
    assert!(!results.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    results
}
