//! `docs/find-it.md` shows what `go tool pprof` says about the example with four faults.
//!
//! `UPDATE=1 cargo test -p tests --test find_it` writes the present outputs into the page.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ADDRESS: &str = "127.0.0.1:6060";
/// The part of each output that must be in it whenever the command runs.
const FOUND: [(&str, &[&str]); 4] = [
    ("/tasks", &["spawn(async move { while shutdown"]),
    ("/heap", &["let report = vec![7; 10_000]", "shop.events.send(vec![7; 5_000])"]),
    ("/stalls", &["std::thread::sleep("]),
    ("tagfocus", &["shop.events.send(vec![7; 5_000])"]),
];

struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command of the page against the example, and returns its output without what differs between machines.
fn run(command: &str, address: &str, directory: &Path) -> String {
    let output = Command::new("sh")
        // Names are looked up in an executable that is not optimised, which may take long.
        .args(["-c", &command.replace(ADDRESS, address).replace("tool pprof", "tool pprof -timeout=300")])
        .env("PPROF_TMPDIR", directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    let root = format!("{}/", support::built::root().display());
    let text = String::from_utf8_lossy(&output.stdout).replace(&root, "");
    let lines = text.lines().filter(|line| !line.starts_with("File: ") && !line.starts_with("Build ID: "));
    let text: String = lines.map(|line| format!("{}\n", line.trim_end())).collect();
    format!("{}\n", text.trim_end())
}

/// Returns the place of a text in the example, as outputs have it.
fn place(text: &str) -> String {
    let source = include_str!("../examples/four_faults.rs");
    let line = source.lines().position(|line| line.contains(text)).unwrap() + 1;
    format!("examples/four_faults.rs:{line}")
}

#[test]
fn each_command_of_the_page_finds_its_fault() {
    if Command::new("go").arg("version").output().is_err() {
        support::skip::skip("there is no Go");
        return;
    }
    let mut example = Command::new(support::built::example("four_faults"));
    let child = example.arg("127.0.0.1:0").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut example = Example(child);
    let mut url = String::new();
    BufReader::new(example.0.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
    let address = url.trim().strip_prefix("http://").and_then(|url| url.split('/').next()).unwrap();
    // Some stalls and some growth.
    std::thread::sleep(Duration::from_secs(12));

    let directory = tempfile::tempdir().unwrap();
    let path = support::built::root().join("docs/find-it.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mut updated = String::new();
    let mut rest = page.as_str();
    let mut found = 0;
    while let Some((before, after)) = rest.split_once("```text\n") {
        let (shown, after) = after.split_once("```").unwrap();
        let command = before.rsplit("```sh\n").next().and_then(|block| block.lines().next()).unwrap();
        let (_, texts) = FOUND.iter().rev().find(|(part, _)| command.contains(part)).expect(command);
        let places: Vec<_> = texts.iter().map(|text| place(text)).collect();
        let mut output = run(command, address, directory.path());
        // A busy machine may keep the watcher from the stacks of the first stalls.
        for _ in 0..10 {
            if places.iter().all(|place| output.contains(place)) {
                break;
            }
            std::thread::sleep(Duration::from_secs(2));
            output = run(command, address, directory.path());
        }
        for place in places {
            assert!(output.contains(&place), "{command} has no {place}: {output}");
            let is_shown = shown.contains(&place) || std::env::var_os("UPDATE").is_some();
            assert!(is_shown, "the page lacks {place}: run this test with UPDATE=1");
            found += 1;
        }
        updated += &format!("{before}```text\n{output}```");
        rest = after;
    }
    updated += rest;
    assert_eq!(found, 5, "each command was run");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, updated).unwrap();
    }
}
