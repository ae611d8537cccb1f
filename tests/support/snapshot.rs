//! Returns values by name, and runs the same program again under other conditions.

use std::collections::BTreeMap;
use std::process::Command;

use opentelemetry_instrumentation_runtime::{RuntimeMetrics, Snapshot};

/// Returns the metrics of this process without an exporter.
pub fn metrics() -> RuntimeMetrics {
    RuntimeMetrics::builder().disk_io(true).build(&opentelemetry::global::meter("test"))
}

/// Returns the values by name, or by `name{value}` with attributes.
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

/// Prints the values. Called by an ignored test named `print`, which [`printed_by`] runs.
pub fn print() {
    for (name, value) in values(&metrics().snapshot()) {
        println!("value {name} {value}");
    }
    println!("value end 0");
}

/// Runs the test `print` of this program through a command and returns the printed values.
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
