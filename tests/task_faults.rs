//! The example finds its four faults, each by route or line, and accuses nothing else.

use std::process::Command;

#[test]
fn each_fault_is_located_by_the_output_alone() {
    let example = support::built::example("four_faults");
    let output = Command::new(example).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let found = |what: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(what)?.split_once(": "))
            .map(|(_, names)| names)
            .unwrap()
    };
    let source = include_str!("../examples/four_faults.rs");
    let line = source.lines().position(|line| line.contains("spawn(async move { while")).unwrap() + 1;
    assert_eq!(found("tasks leak"), format!("examples/four_faults.rs:{line}"), "{text}");
    assert_eq!(found("polls block"), "GET /price/{id}", "{text}");
    let growing: Vec<_> = found("memory grows").split(", ").collect();
    assert!(growing.contains(&"GET /report/{id}") && growing.contains(&"POST /event/{id}"), "{text}");
    assert!(!growing.contains(&"GET /order/{id}"), "it frees what it allocates: {text}");
    for function in ["four_faults::report", "four_faults::event"] {
        assert!(
            text.lines().any(|line| line.starts_with(' ') && line.contains(function)),
            "{function}: {text}"
        );
    }
}
