//! The README's first command: it runs, shows both leaks as they arrive over the wire, and ends as it should.

#![cfg(unix)]

use support::receiver;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use receiver::{Receiver, points};

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Waits for a line of its output.
fn read_until(child: &mut Child, text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
        lines.push(line.unwrap());
        if lines.last().unwrap().contains(text) {
            return lines;
        }
    }
    panic!("{text:?} never came in {lines:#?}");
}

#[test]
fn it_shows_both_leaks_and_ends_after_its_time_with_the_last_export() {
    let output = demo().args(["--for", "3s"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let last = text.rsplit("\nexport ").next().unwrap();
    let line = |start: &str| {
        let found = last.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("{start:?} is not in {last}"))
    };
    assert!(line("rust.memory.used ").contains('+'), "the cache grows: {last}");
    assert!(line("subscriber ").contains('+'), "the subscribers grow: {last}");
    assert!(!line("cache ").contains('+'), "one task fills the cache: {last}");
    assert!(!text.contains('\x1b'), "no terminal, no escapes");
    let exports: u32 = text
        .lines()
        .last()
        .and_then(|line| line.strip_suffix(" exports were received, the last one at shutdown"))
        .unwrap_or_else(|| panic!("{text}"))
        .parse()
        .unwrap();
    assert!(exports >= 2, "one a second and one at shutdown: {exports}");
}

#[test]
fn ctrl_c_and_a_request_to_terminate_end_it_well() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut child = demo().spawn().unwrap();
        read_until(&mut child, "export 1:");
        #[allow(unsafe_code, reason = "std cannot send a signal")]
        // SAFETY: `kill` takes any numbers; the child has not been waited for, so the id is still its own.
        let sent = unsafe { libc::kill(child.id().try_into().unwrap(), signal) };
        assert_eq!(sent, 0);
        read_until(&mut child, "the last one at shutdown");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn with_an_endpoint_it_ships_there() {
    let receiver = Receiver::start();
    let output = demo()
        .args(["--for", "1s"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
        .env("OTEL_METRIC_EXPORT_INTERVAL", "60000")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(receiver.wait_for(1, Duration::from_secs(5)), "the last export comes in");
    let export = receiver.last().unwrap();
    assert!(export.value("rust.memory.allocated").unwrap() > 0.0);
    let tasks = points(export.metric("rust.task.count").expect("named tasks are exported"));
    assert!(
        tasks.iter().any(|point| point.attributes["rust.task.name"] == "subscriber" && point.value > 0.0)
    );
}

#[test]
fn a_wrong_argument_is_told() {
    let output = demo().args(["--for", "long"]).stderr(Stdio::piped()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--for long"), "{output:?}");
}
