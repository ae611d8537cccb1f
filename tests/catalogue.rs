//! Checks the catalogue: METRICS.md renders it, and its names follow the rules.

use std::collections::BTreeSet;
use std::fmt::Write;

use opentelemetry_instrumentation_runtime::{Availability, Group, Kind, Metric, catalogue};
use opentelemetry_semantic_conventions::{attribute, metric};

const INTRODUCTION: &str = "\
# Metrics

All metrics that the library can report, by source. Names, kinds and units are public API. A value that cannot be read is
left out, never reported as zero.

The column *reported* says when: *default* wherever the source is on, *on request* if a method of the builder turns it on,
*unstable* if the program is compiled with `--cfg tokio_unstable`. Counters are cumulative since the process started. The
Prometheus names are those that Prometheus's OTLP receiver makes.

This page is generated from the rows in `src/source/`. After a change, run
`UPDATE=1 cargo test -p tests --test catalogue`.
";

#[test]
fn metrics_md_equals_the_rows() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../METRICS.md");
    let rendered = render();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &rendered).expect("METRICS.md can be written");
    }
    let written = std::fs::read_to_string(path).expect("METRICS.md is there");
    assert!(written == rendered, "METRICS.md is stale: run `UPDATE=1 cargo test -p tests --test catalogue`");
}

fn render() -> String {
    let sections = catalogue().iter().map(section).collect::<String>();
    format!("{INTRODUCTION}{sections}")
}

fn section(group: &Group) -> String {
    let mut text = format!("\n## {}\n\n{}\n\n", group.name, group.about);
    text += "| name | kind | unit | attributes | Prometheus name | reported |\n|---|---|---|---|---|---|\n";
    for metric in &group.metrics {
        let always = group.attributes.iter().copied().chain(metric.attribute()).map(|key| format!("`{key}`"));
        let on_request = metric.opt_in_attribute().map(|key| format!("on request `{key}`"));
        let attributes: Vec<_> = always.chain(on_request).collect();
        let cells = [
            format!("`{}`", metric.name()),
            kind(metric).into(),
            format!("`{}`", metric.unit()),
            attributes.join(", "),
            format!("`{}`", prometheus_name(metric)),
            availability(metric).into(),
        ];
        writeln!(text, "| {} |", cells.join(" | ")).expect("a string accepts all text");
    }
    for metric in &group.metrics {
        let (name, says) = (metric.name(), metric.description());
        let (origin, advice) = (metric.origin(), metric.advice());
        write!(text, "\n### {name}\n{says}\n\n- Read from: {origin}\n- When it moves: {advice}\n")
            .expect("a string accepts all text");
    }
    text
}

fn kind(metric: &Metric) -> &'static str {
    match metric.kind() {
        Kind::Counter => "counter",
        Kind::UpDownCounter => "up-down counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        _ => panic!("an unknown kind"),
    }
}

fn availability(metric: &Metric) -> &'static str {
    match metric.availability() {
        Availability::Default => "default",
        Availability::OptIn => "on request",
        Availability::Unstable => "unstable",
        _ => panic!("an unknown availability"),
    }
}

fn prometheus_name(metric: &Metric) -> String {
    let unit = match metric.unit() {
        "By" => "_bytes",
        "s" => "_seconds",
        _ => "",
    };
    let total = if metric.kind() == Kind::Counter { "_total" } else { "" };
    metric.name().replace('.', "_") + unit + total
}

fn metrics() -> Vec<&'static Metric> {
    catalogue().into_iter().flat_map(|group| group.metrics).collect()
}

#[test]
fn every_row_is_complete_and_keeps_the_naming_rules() {
    let mut names = BTreeSet::new();
    for metric in metrics() {
        let name = metric.name();
        assert!(names.insert(name), "{name} twice");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c)), "{name}");
        assert!(!name.split(['.', '_']).any(|word| ["total", "bytes", "seconds"].contains(&word)), "{name}");
        let unit = metric.unit();
        assert!(
            ["By", "s"].contains(&unit) || (unit.starts_with('{') && unit.ends_with('}')),
            "{name}: {unit}"
        );
        for sentence in [metric.description(), metric.origin(), metric.advice()] {
            assert!(sentence.ends_with('.') && sentence.len() > 10, "{name}: {sentence:?}");
        }
    }
}

#[test]
fn groups_are_named_and_described() {
    for group in catalogue() {
        assert!(!group.metrics.is_empty(), "{}", group.name);
        assert!(group.about.ends_with('.'), "{}: {:?}", group.name, group.about);
    }
}

/// The crate of the conventions has only the names, not the kinds and units.
#[test]
fn process_metrics_are_those_of_the_semantic_conventions() {
    let by = |name, kind, unit| (name, kind, unit, None);
    let conventions = BTreeSet::from([
        (metric::PROCESS_CPU_TIME, "counter", "s", Some(attribute::CPU_MODE)),
        by(metric::PROCESS_MEMORY_USAGE, "up-down counter", "By"),
        by(metric::PROCESS_MEMORY_VIRTUAL, "up-down counter", "By"),
        by(metric::PROCESS_THREAD_COUNT, "up-down counter", "{thread}"),
        by(metric::PROCESS_UNIX_FILE_DESCRIPTOR_COUNT, "up-down counter", "{file_descriptor}"),
        (
            metric::PROCESS_CONTEXT_SWITCHES,
            "counter",
            "{context_switch}",
            Some(attribute::PROCESS_CONTEXT_SWITCH_TYPE),
        ),
        (metric::PROCESS_PAGING_FAULTS, "counter", "{fault}", Some(attribute::SYSTEM_PAGING_FAULT_TYPE)),
        by(metric::PROCESS_UPTIME, "gauge", "s"),
        (metric::PROCESS_DISK_IO, "counter", "By", Some(attribute::DISK_IO_DIRECTION)),
    ]);
    let ours: BTreeSet<_> = metrics()
        .into_iter()
        .filter(|metric| metric.name().starts_with("process."))
        .map(|metric| (metric.name(), kind(metric), metric.unit(), metric.attribute()))
        .collect();
    assert_eq!(ours, conventions);
}
