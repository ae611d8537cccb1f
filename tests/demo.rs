//! The README's first command shows both leaks and the stall, fits a terminal, and ends with the right status.

#![cfg(unix)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::receiver::{Receiver, points};

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(["--page", "127.0.0.1:0"]);
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
fn with_an_endpoint_it_exports_there() {
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
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains(&receiver.endpoint()) && text.contains("memory: "),
        "it shows something too: {text}"
    );
    assert!(text.ends_with("the last export was delivered\n"), "{text}");
}

#[test]
fn help_succeeds_and_a_wrong_argument_fails_with_the_usage() {
    for help in ["--help", "-h"] {
        let output = demo().arg(help).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("usage: demo"), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
    for wrong in
        [&["--for", "long"][..], &["--for"], &["--four", "3s"], &["--for", "1s", "more"], &["--flame"]]
    {
        let output = demo().args(wrong).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains("usage: demo") && output.stdout.is_empty(), "{output:?}");
    }
    let output = demo().args(["--for", "long"]).stderr(Stdio::piped()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--for long"), "{output:?}");
}

#[test]
fn a_closed_pipe_ends_it_silently() {
    let mut child = demo().stderr(Stdio::piped()).spawn().unwrap();
    read_until(&mut child, "export 1:");
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// Starts the demo on a pseudo terminal of 80x24 and returns what it writes there.
#[allow(unsafe_code, reason = "std has no pseudo terminals")]
fn on_a_terminal() -> (Child, File) {
    let (mut controller, mut terminal) = (-1, -1);
    let mut size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both descriptors and the size are valid for the call, and null pointers stand for no name and no settings.
    let opened = unsafe {
        libc::openpty(
            &mut controller,
            &mut terminal,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut size,
        )
    };
    assert_eq!(opened, 0, "a pseudo terminal");
    // SAFETY: `openpty` has opened both descriptors, and nothing else owns them.
    let (controller, terminal) = unsafe { (File::from_raw_fd(controller), OwnedFd::from_raw_fd(terminal)) };
    let child = demo().stdout(terminal).spawn().unwrap();
    (child, controller)
}

/// Removes the escape sequences that the demo uses.
fn without_escapes(frame: &str) -> String {
    ["\x1b[1m", "\x1b[0m", "\x1b[K", "\x1b[J"]
        .iter()
        .fold(frame.to_owned(), |text, escape| text.replace(escape, ""))
}

#[test]
fn a_terminal_of_80x24_shows_both_leaks_and_the_stall_without_wrapping() {
    let (mut child, mut terminal) = on_a_terminal();
    let (mut text, mut bytes) = (String::new(), [0; 4096]);
    let start = Instant::now();
    let frame = loop {
        let read = terminal.read(&mut bytes).unwrap();
        text.push_str(std::str::from_utf8(&bytes[..read]).expect("the demo writes ASCII"));
        // The last frame may not be whole yet.
        let frames: Vec<_> = text.split("\x1b[H").map(without_escapes).collect();
        let whole = frames.len().checked_sub(2).map(|index| frames[index].clone()).unwrap_or_default();
        let marked = |mark: &str| whole.lines().any(|line| line.starts_with(mark));
        if marked("GROWS   memory: ")
            && marked("GROWS   task subscriber: ")
            && marked("STALLS  a worker stood still")
        {
            break whole;
        }
        // A busy machine stretches the waves of load, and a leak is marked only once it outgrows them.
        assert!(start.elapsed() < Duration::from_secs(400), "not marked: {whole}");
    };
    child.kill().unwrap();
    child.wait().unwrap();
    for frame in text.split("\x1b[H").map(without_escapes) {
        assert!(frame.lines().count() < 24, "{frame}");
        for line in frame.lines() {
            assert!(!line.contains('\x1b'), "{line:?}");
            assert!(line.chars().count() <= 80, "{} columns: {line:?}", line.chars().count());
        }
    }
    for start in
        ["export ", "task ", "accept ", "cache ", "report ", "request ", "subscriber ", "rust.memory.used "]
    {
        assert!(frame.lines().any(|line| line.starts_with(start)), "{start:?} is not in {frame}");
    }
}
