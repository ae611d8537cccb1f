//! A malformed variable never stops a service: it is ignored with one warning, or an error names it, without secrets.

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp;
use support::child::export_once;
use support::log;
use support::receiver::Receiver;

/// Exports once with these variables and returns the result and the warnings.
fn export(set: &[(&str, &str)]) -> (String, Vec<String>) {
    let mut lines = export_once(set);
    let result = lines.remove(0);
    (result, lines)
}

#[test]
#[ignore = "run by other tests, in a child process"]
fn child_exports_once() {
    log::listen();
    let export = || {
        let telemetry = otlp::install()?;
        telemetry.provider().meter("app").u64_counter("orders").build().add(3, &[]);
        let result = telemetry.force_flush();
        println!("RESULT {}", if result.is_ok() { "delivered".into() } else { format!("{result:?}") });
        println!("RESULT DEBUG {telemetry:?}");
        drop(telemetry);
        Ok(())
    };
    let result: Result<(), otlp::Error> = export();
    if let Err(error) = result {
        println!("RESULT {error}");
        println!("RESULT DEBUG {error:?}");
    }
    log::take().iter().for_each(|line| println!("RESULT {line}"));
}

/// The lines of the log.
fn warnings(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.starts_with("WARN ")).collect()
}

#[test]
fn values_that_the_specification_ignores_cause_one_warning() {
    for (name, value, shown) in [
        ("OTEL_SDK_DISABLED", "1", "OTEL_SDK_DISABLED=1: it must be one of: true, false"),
        ("OTEL_SDK_DISABLED", "yes", "OTEL_SDK_DISABLED=yes: "),
        ("OTEL_METRICS_EXPORTER", "prometheus", "OTEL_METRICS_EXPORTER=prometheus: "),
        ("OTEL_METRICS_EXPORTER", "otlp,prometheus", "OTEL_METRICS_EXPORTER=otlp,prometheus: "),
        ("OTEL_METRICS_EXPORTER", "'otlp'", "the value stands in quotes; remove them"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/xml", "OTEL_EXPORTER_OTLP_PROTOCOL=http/xml: "),
        (
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
            "\"http/protobuf\"",
            "the value stands in quotes; remove them",
        ),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli", "OTEL_EXPORTER_OTLP_COMPRESSION=brotli: "),
        ("OTEL_METRIC_EXPORT_INTERVAL", "60s", "OTEL_METRIC_EXPORT_INTERVAL=60s: it must be a whole number"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "OTEL_METRIC_EXPORT_INTERVAL=0: it must be greater than 0"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "-5", "OTEL_METRIC_EXPORT_TIMEOUT=-5: it must be a whole number"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1e3", "OTEL_EXPORTER_OTLP_TIMEOUT=1e3: it must be a whole number"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta2", "=Delta2: it must be one of"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "foo=bar,spam",
            "OTEL_RESOURCE_ATTRIBUTES: left out: entry 2 is not of the form",
        ),
        ("HTTP_PROXY", "socks5://p:1", ""),
    ] {
        let receiver = Receiver::start();
        let (result, lines) = export(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint()), (name, value)]);
        assert_eq!(result, "delivered", "{name}={value}: {lines:?}");
        let warnings = warnings(&lines);
        // The proxy is ignored for an endpoint on this machine.
        assert_eq!(warnings.len(), usize::from(!shown.is_empty()), "{name}={value}: {lines:?}");
        assert!(warnings.iter().all(|line| line.contains(shown)), "{name}={value}: {lines:?}");
        let export = receiver.last().unwrap();
        assert_eq!(export.value("orders"), Some(3.0));
        if name == "OTEL_RESOURCE_ATTRIBUTES" {
            assert_eq!(export.resource("foo").as_deref(), Some("bar"));
        }
    }
}

#[test]
fn a_timeout_of_zero_is_no_limit_and_an_empty_name_is_not_set() {
    let receiver = Receiver::start();
    let (result, lines) = export(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "0"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=,team=a"),
        ("OTEL_SERVICE_NAME", ""),
    ]);
    assert_eq!(result, "delivered");
    assert_eq!(warnings(&lines), [""; 0]);
    let export = receiver.last().unwrap();
    assert!(export.resource("service.name").unwrap().starts_with("unknown_service:"));
    assert_eq!(export.resource("team").as_deref(), Some("a"));
}

#[test]
fn settings_that_cannot_work_are_errors_with_their_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let encrypted = file(
        "encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let old = file(
        "old.key",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    );
    let nowhere = format!("{}/nowhere.pem", directory.path().display());
    let https = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1");
    let header = |value: &'static str| vec![("OTEL_EXPORTER_OTLP_HEADERS", value)];
    let key = "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----";
    let client = |key| {
        vec![
            https,
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &*encrypted),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key),
        ]
    };
    for (set, sentence) in [
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318")], "it must begin with http:// or https://"),
        (
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "'http://localhost'")],
            "the value stands in quotes; remove them",
        ),
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318/v1/metrics")], "remove /v1/metrics"),
        (
            header("Content-Length=0"),
            "entry 1 sets content-length, which only the exporter may set; remove it",
        ),
        (header("a=1,transfer-encoding=chunked"), "entry 2 sets transfer-encoding"),
        (header("Host=s3cret"), "entry 1 sets host"),
        (header("Authorization: Basic s3cret=="), "entry 1 is not of the form key=value"),
        (header("api-key=s3cret,tail=="), "entry 2 is not of the form key=value"),
        (header("s3cret"), "entry 1 is not of the form key=value"),
        (client(&encrypted), "the key is encrypted; decrypt it"),
        (client(&old), "the key is encrypted; decrypt it"),
        (client(key), "=[hidden]: it must be the name of a PEM file"),
        (vec![https, ("OTEL_EXPORTER_OTLP_CERTIFICATE", &nowhere)], "nowhere.pem: the file cannot be read"),
    ] {
        let (error, lines) = export(&set);
        assert!(error.contains(sentence), "{set:?}: {error}");
        assert!(
            !error.contains("s3cret") && !lines.iter().any(|line| line.contains("s3cret")),
            "{set:?}: {error}"
        );
    }
}
