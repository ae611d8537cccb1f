//! The example with OpenTelemetry's own exporters delivers metrics, traces and logs to the real Collector, over both
//! protocols, with one resource.

use std::time::Duration;

use support::built;
use support::collector::{Collector, Config};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn opentelemetry_s_exporters_deliver_every_signal_over_both_protocols() {
    let Some(collector) = Collector::start(&Config::default()) else { return };
    let example = built::build(&["-p", "tests", "--example", "own_provider"]).join("examples/own_provider");
    for (count, (protocol, port)) in
        [("grpc", collector.ports().grpc), ("http/protobuf", collector.ports().http)].into_iter().enumerate()
    {
        let mut command = std::process::Command::new(&example);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
            command.env_remove(name);
        }
        let output = command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_RESOURCE_ATTRIBUTES", "team=a")
            .output()
            .unwrap();
        assert!(output.status.success(), "{protocol}: {output:?}");
        let arrived = |text: &str| {
            ["-> Name: rust.memory.used\n", "    Name           : serve\n", "Body: Str(served)\n"]
                .iter()
                .all(|signal| text.matches(signal).count() > count)
        };
        assert!(collector.wait_for(arrived, LONG), "{protocol}: {}", collector.printed());
    }
    let printed = collector.printed();
    assert_eq!(printed.matches("-> service.name: Str(own-provider)").count(), 6, "{printed}");
    assert_eq!(printed.matches("-> team: Str(a)").count(), 6, "{printed}");
    assert_eq!(
        printed.matches("InstrumentationScope my-service").count(),
        4,
        "metrics and traces: {printed}"
    );
    assert!(collector.values("rust.memory.used").iter().all(|bytes| *bytes > 0.0));
    // The log is in the span.
    let trace = |start: &str| {
        let line = printed.split(start).nth(1).and_then(|rest| rest.split("Trace ID").nth(1));
        line.and_then(|rest| rest.lines().next()).map(|id| id.trim_start_matches([' ', ':']).to_owned())
    };
    assert_eq!(trace("ResourceLog #0"), trace("ResourceSpans #0"), "{printed}");
}
