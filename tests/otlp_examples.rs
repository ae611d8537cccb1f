//! The examples export what they describe.

use support::{built, receiver};

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use receiver::{Export, Receiver, points};

fn example(name: &str) -> Command {
    let mut command = Command::new(built::example(name));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command
}

/// Runs an example to its end, checks its status, and returns the last export.
fn last_export(name: &str) -> Export {
    let receiver = Receiver::start();
    let output = example(name).env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    receiver.last().expect("an export has arrived")
}

fn names_of_tasks(export: &Export) -> Vec<String> {
    let spawned = points(export.metric("rust.task.spawned").expect("tasks have names"));
    spawned.into_iter().map(|point| point.attributes["rust.task.name"].clone()).collect()
}

#[test]
fn quickstart() {
    let export = last_export("quickstart");
    assert!(export.value("rust.memory.used").unwrap() > 0.0);
    assert!(export.value("tokio.task.count").is_some());
    assert_eq!(names_of_tasks(&export), ["server"]);
}

#[test]
fn current_thread() {
    let export = last_export("current_thread");
    assert!(export.value("rust.memory.used").unwrap() > 0.0);
    assert!(export.metric("tokio.worker.count").is_some());
}

#[test]
fn without_tokio() {
    let export = last_export("without_tokio");
    assert!(export.value("rust.memory.allocations").unwrap() > 0.0);
    assert!(export.metric("tokio.worker.count").is_none());
}

#[test]
#[cfg(unix)]
#[allow(unsafe_code, reason = "there is no other way to send a signal")]
fn axum_service() {
    let receiver = Receiver::start();
    let mut service = example("axum_service")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(service.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("hello\n"), "{answer}");
    // SAFETY: it sends a signal to a child of this process, which has not been waited for.
    unsafe { libc::kill(service.id().cast_signed(), libc::SIGINT) };
    assert!(service.wait().unwrap().success());
    let export = receiver.last().expect("an export has arrived");
    assert_eq!(export.resource("service.name").as_deref(), Some("axum-service"));
    let mut names = names_of_tasks(&export);
    names.sort();
    let source = include_str!("../examples/axum_service.rs");
    let line = source.lines().position(|line| line.trim() == "spawn(audit());").unwrap() + 1;
    assert_eq!(names, ["GET /", &format!("examples/axum_service.rs:{line}"), "server"]);
}
