//! Values by name, and the same program run again under other conditions.

use std::collections::BTreeMap;
use std::process::Command;

use opentelemetry_instrumentation_runtime::{RuntimeMetrics, Snapshot};

/// What is measured in this process, exported nowhere.
pub fn metrics() -> RuntimeMetrics {
    RuntimeMetrics::builder().disk_io(true).build(&opentelemetry::global::meter("test"))
}

/// The values by name; with attributes, by `name{value}`.
pub fn values(snapshot: &Snapshot) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    for reading in snapshot.readings() {
        for point in reading.points() {
            let attributes: Vec<_> = point.attributes().iter().map(|(_, value)| value.to_string()).collect();
            let name = reading.metric().name();
            let name = if attributes.is_empty() {
                name.to_owned()
            } else {
                format!("{name}{{{}}}", attributes.join(","))
            };
            if let Some(value) = point.value().as_f64() {
                values.insert(name, value);
            }
        }
    }
    values
}

/// To be called in a test named `print`, which is ignored unless it is run by [`printed_by`].
pub fn print() {
    for (name, value) in values(&metrics().snapshot()) {
        println!("value {name} {value}");
    }
    println!("value end 0");
}

/// The values that this test program has when its test `print` is run through a command that runs another.
pub fn printed_by(through: &[&str]) -> BTreeMap<String, f64> {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(through[0])
        .args(&through[1..])
        .arg(program)
        .args(["--ignored", "--exact", "print", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{through:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let values = text.lines().filter_map(|line| {
        // The harness writes the test's name in front of the first line.
        let (_, rest) = line.split_once("value ")?;
        let (name, value) = rest.split_once(' ')?;
        Some((name.to_owned(), value.parse().unwrap()))
    });
    let values: BTreeMap<_, _> = values.collect();
    assert!(values.contains_key("end"), "{through:?}: {text}");
    values
}
