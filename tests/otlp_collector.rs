//! The real Collector receives the values over both protocols, compressed, and over TLS, whose failures have clear messages.
//! Without a Collector the test reports that it is skipped.

use support::child::{export_once, report};
use support::collector;
use support::proxy;

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use collector::{Collector, Config};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{init_runtime_metrics, otlp};
use proxy::Proxy;

#[path = "support/certificates.rs"]
mod certificates;
use certificates::Certificates;

const LONG: Duration = Duration::from_secs(20);

#[test]
fn the_values_arrive_over_both_protocols_in_every_encoding() {
    let Some(collector) = Collector::start(&Config::default()) else { return };
    let ports = collector.ports();
    let mut exports = 0;
    for (protocol, port) in [("grpc", ports.grpc), ("http/protobuf", ports.http)] {
        for compression in ["none", "gzip", "zstd"] {
            let said = child(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{port}")),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
                ("OTEL_SERVICE_NAME", "shop"),
            ]);
            assert_eq!(said, "delivered", "{protocol} {compression}");
            exports += 1;
            let printed = |text: &str| text.matches("-> Name: orders").count() == exports;
            assert!(collector.wait_for(printed, LONG), "{}", collector.printed());
        }
    }
    assert_eq!(collector.values("orders"), [3.0; 6]);
    let printed = collector.printed();
    assert_eq!(printed.matches("-> service.name: Str(shop)").count(), 6);
    assert_eq!(printed.matches("-> service.instance.id: Str(").count(), 6);
    let scope =
        format!("InstrumentationScope opentelemetry-instrumentation-runtime {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(printed.matches(&scope).count(), 6);
    assert_eq!(printed.matches("-> Name: tokio.task.count").count(), 6);
}

#[test]
fn tls_and_client_certificates_work_over_both_protocols() {
    let files = Certificates::new();
    let config = Config { server: files.collector(), ..Config::default() };
    let Some(collector) = Collector::start(&config) else { return };
    let authority = ("OTEL_EXPORTER_OTLP_CERTIFICATE", files.path("authority.pem"));
    let identity = |name: &str| {
        [
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", files.path(&format!("{name}.pem"))),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", files.path(&format!("{name}.key"))),
        ]
    };
    for (protocol, port) in [("grpc", collector.ports().grpc), ("http/protobuf", collector.ports().http)] {
        let before = collector.values("orders").len();
        let try_with = |more: &[(&str, String)]| {
            let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], port)));
            let endpoint = format!("https://localhost:{}", proxy.address().port());
            let mut set =
                vec![("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)];
            set.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
            (child(&set), proxy.connections())
        };
        let [certificate, key] = identity("client");
        let (said, _) = try_with(&[authority.clone(), certificate.clone(), key.clone()]);
        assert_eq!(said, "delivered", "{protocol}");
        assert!(collector.wait_for(|text| text.matches("-> Name: orders").count() == before + 1, LONG));

        let [expired, expired_key] = identity("expired");
        let [foreign, foreign_key] = identity("foreign");
        for (what, set, words) in [
            ("no authority that the system trusts", vec![certificate.clone(), key.clone()], "UnknownIssuer"),
            (
                "the wrong authority",
                vec![
                    ("OTEL_EXPORTER_OTLP_CERTIFICATE", files.path("other.pem")),
                    certificate.clone(),
                    key.clone(),
                ],
                "UnknownIssuer",
            ),
            ("no client certificate", vec![authority.clone()], "CertificateRequired"),
            (
                "an expired client certificate",
                vec![authority.clone(), expired, expired_key],
                "CertificateExpired",
            ),
            (
                "a client certificate of another authority",
                vec![authority.clone(), foreign, foreign_key],
                "fatal alert",
            ),
        ] {
            let (said, connections) = try_with(&set);
            assert!(said.contains(words), "{protocol}, {what}: {said}");
            assert!(said.contains("https://localhost:"), "{protocol}, {what}: {said}");
            eprintln!("{protocol}, {what}: {said}");
            assert_eq!(connections, 1, "{protocol}, {what}: a retry would not help");
        }
    }
}

#[test]
fn an_expired_server_is_not_trusted() {
    let files = Certificates::new();
    let server =
        format!("tls: {{cert_file: {}, key_file: {}}}", files.path("expired.pem"), files.path("expired.key"));
    let Some(collector) = Collector::start(&Config { server, ..Config::default() }) else { return };
    for (protocol, port) in [("grpc", collector.ports().grpc), ("http/protobuf", collector.ports().http)] {
        let said = child(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("https://localhost:{port}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", &files.path("authority.pem")),
        ]);
        assert!(said.to_lowercase().contains("expired"), "{said}");
    }
}

#[test]
fn an_error_names_the_variable_of_a_file_without_certificates() {
    let files = Certificates::new();
    fs::write(files.directory().join("empty.pem"), "").unwrap();
    fs::write(
        files.directory().join("broken.pem"),
        "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let https = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1");
    let authority = |file: &str| child(&[https, ("OTEL_EXPORTER_OTLP_CERTIFICATE", &files.path(file))]);
    for (file, words) in [
        ("nowhere.pem", "the file cannot be read"),
        ("empty.pem", "there is no certificate in that file"),
        ("server.key", "there is no certificate in that file"),
        ("broken.pem", "the file is not valid PEM"),
    ] {
        let said = authority(file);
        let expected = format!("OTEL_EXPORTER_OTLP_CERTIFICATE={}: {words}", files.path(file));
        assert!(said.starts_with(&expected), "{said}");
    }
    let certificate = ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &*files.path("client.pem"));
    let said = child(&[https, certificate]);
    assert!(said.ends_with("client.pem: set OTEL_EXPORTER_OTLP_CLIENT_KEY too"), "{said}");
    let key = ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", &*files.path("server.key"));
    let said = child(&[https, key]);
    assert!(said.starts_with("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY="), "{said}");
    let said = child(&[https, certificate, key]);
    assert!(
        said.starts_with("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE="),
        "a key of another certificate: {said}"
    );
}

/// Exports once in a child process with these variables, and returns the result.
fn child(set: &[(&str, &str)]) -> String {
    export_once(set).remove(0)
}

#[test]
#[ignore = "run by other tests, in a child process"]
fn child_exports_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let _inside = runtime.enter();
    let export = || {
        let telemetry = otlp::install()?;
        init_runtime_metrics(&telemetry.meter());
        telemetry.provider().meter("app").u64_counter("orders").build().add(3, &[]);
        telemetry.shutdown()
    };
    report(export());
}
