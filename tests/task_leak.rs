//! The example finds its leak, by name and, under the hooks, by line.

use std::process::Command;

#[test]
fn it_names_the_one_kind_of_task_that_leaks() {
    let example = support::built::example("task_leak");
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
