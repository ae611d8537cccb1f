//! Proxies work for every protocol, with TLS on either side and on both, and with exceptions.

use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp;
use support::child::{export_once, report};
use support::collector::{Collector, Config};
use support::receiver::Receiver;

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/http_proxy.rs"]
mod http_proxy;
use certificates::Certificates;
use http_proxy::{Behaviour, HttpProxy};

const LONG: Duration = Duration::from_secs(60);
const PROTOCOLS: [&str; 3] = ["grpc", "http/protobuf", "http/json"];
/// `user:s3cret` in base64.
const CREDENTIALS: &str = "dXNlcjpzM2NyZXQ=";

/// Exports once in a child process with these variables, and returns the result.
fn export(set: &[(&str, &str)]) -> String {
    export_once(set).remove(0)
}

#[test]
#[ignore = "run by other tests, in a child process"]
fn child_exports_once() {
    let export = || {
        let telemetry = otlp::install()?;
        telemetry.provider().meter("app").u64_counter("orders").build().add(3, &[]);
        // Unlike a shutdown, it waits for a machine that is busy.
        let result = telemetry.force_flush();
        // Another export would be one too many.
        std::mem::forget(telemetry);
        result
    };
    report(export());
}

/// The credentials are in the first request, whichever it is.
#[track_caller]
fn assert_authorized(head: &str) {
    let expected = format!("proxy-authorization: basic {CREDENTIALS}").to_ascii_lowercase();
    assert!(head.to_ascii_lowercase().contains(&expected), "{head}");
}

#[test]
fn the_collector_is_reached_through_proxies_by_every_protocol() {
    let files = Certificates::new();
    let (certificate, key) = (files.path("server.pem"), files.path("server.key"));
    let server = format!("tls: {{cert_file: {certificate}, key_file: {key}}}");
    let Some(plain) = Collector::start(&Config::default()) else { return };
    let secure = Collector::start(&Config { server, ..Config::default() }).unwrap();
    for (collector, scheme, variable) in [(&plain, "http", "HTTP_PROXY"), (&secure, "https", "HTTPS_PROXY")] {
        let mut exports = 0;
        for is_secure in [false, true] {
            for protocol in PROTOCOLS {
                let ports = collector.ports();
                let port = if protocol == "grpc" { ports.grpc } else { ports.http };
                let behaviour = Behaviour::Connect(SocketAddr::from(([127, 0, 0, 1], port)));
                let proxy = match is_secure {
                    true => HttpProxy::over_tls(behaviour, &certificate, &key),
                    false => HttpProxy::start(behaviour),
                };
                let case = format!("{protocol}, {scheme} through {}", proxy.url(""));
                let result = export(&[
                    ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("{scheme}://collector.test:4318")),
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                    ("OTEL_EXPORTER_OTLP_CERTIFICATE", &files.path("authority.pem")),
                    (variable, &proxy.url("user:s3cret@")),
                ]);
                assert_eq!(result, "delivered", "{case}");
                let expected = match (scheme, protocol) {
                    ("http", "http/protobuf" | "http/json") => {
                        "POST http://collector.test:4318/v1/metrics HTTP/1.1"
                    }
                    _ => "CONNECT collector.test:4318 HTTP/1.1",
                };
                let head = proxy.first_head();
                assert!(head.starts_with(expected), "{case}: {head}");
                assert_authorized(&head);
                exports += 1;
                let arrived = |text: &str| text.matches("-> Name: orders").count() == exports;
                assert!(collector.wait_for(arrived, LONG), "{case}: {}", collector.printed());
            }
        }
        assert_eq!(collector.values("orders"), [3.0; 6]);
    }
}

#[test]
fn exceptions_are_reached_without_the_proxy() {
    let receiver = Receiver::start();
    for protocol in ["grpc", "http/protobuf"] {
        let proxy = HttpProxy::start(Behaviour::Connect(receiver.address()));
        let set = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.test:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("HTTP_PROXY", &proxy.url("")),
        ];
        // This host does not exist.
        for exceptions in ["*", "collector.test", ".test", "*.test", "a,collector.test:4318"] {
            let error = export(&[&set[..], &[("NO_PROXY", exceptions)]].concat());
            assert!(error.starts_with("the metrics were not delivered"), "{protocol} {exceptions}: {error}");
        }
        assert_eq!(proxy.heads(), [""; 0]);
        for others in ["other.test", "collector.test:4317", "10.0.0.0/8"] {
            let before = receiver.exports().len();
            let patient = ("OTEL_EXPORTER_OTLP_TIMEOUT", "20000");
            let result = export(&[&set[..], &[patient, ("no_proxy", others)]].concat());
            assert_eq!(result, "delivered", "{protocol} {others}");
            assert_eq!(receiver.exports().len(), before + 1);
        }
        assert_eq!(proxy.heads().len(), 3);
        // This machine is reached directly.
        for host in ["127.0.0.1", "localhost"] {
            let endpoint = format!("http://{host}:{}", receiver.address().port());
            let set = [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("http_proxy", "http://127.0.0.1:1"),
            ];
            assert_eq!(export(&set), "delivered", "{protocol} {host}");
        }
    }
}

#[test]
fn a_proxy_that_refuses_is_named_without_its_password() {
    for (status, sentence) in [
        ("407 Proxy Authentication Required", "wants a user and a password; write them into HTTP_PROXY"),
        ("403 Forbidden", "it answered HTTP/1.1 403 Forbidden"),
        ("403 no user s3cret by dXNlcjpzM2NyZXQ=", "it answered HTTP/1.1 403 no [hidden]"),
        ("502 Bad Gateway", "it answered HTTP/1.1 502 Bad Gateway"),
    ] {
        let proxy = HttpProxy::start(Behaviour::Refuse(status));
        let error = export(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.test"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("HTTP_PROXY", &proxy.url("user:s3cret@")),
        ]);
        assert!(error.contains(sentence), "{error}");
        assert!(!error.contains("s3cret") && !error.contains(CREDENTIALS), "{error}");
        let name = format!("the proxy http://[hidden]@{} of HTTP_PROXY", proxy.address());
        assert!(error.contains(&name), "{error}");
        assert!(proxy.first_head().starts_with("CONNECT collector.test:80 "));
    }
    // A proxy that forwards answers in the place of the endpoint.
    let proxy = HttpProxy::start(Behaviour::Refuse("407 Proxy Authentication Required"));
    let error = export(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.test"),
        ("HTTP_PROXY", &proxy.url("user:s3cret@")),
    ]);
    assert!(
        error.contains("write a user and a password into HTTP_PROXY") && !error.contains("s3cret"),
        "{error}"
    );
}

#[test]
fn a_proxy_that_cannot_be_reached_is_named_without_its_password() {
    let files = Certificates::new();
    let nowhere = Behaviour::Connect(SocketAddr::from(([127, 0, 0, 1], 1)));
    let plain_proxy = HttpProxy::start(nowhere);
    let foreign = HttpProxy::over_tls(nowhere, &files.path("foreign.pem"), &files.path("foreign.key"));
    let (plain, foreign_url) = (plain_proxy.address(), foreign.url("user:s3cret@"));
    for (proxy, sentence) in [
        ("http://user:s3cret@127.0.0.1:1", "no connection: "),
        ("https://user:s3cret@127.0.0.1:1", "no connection: "),
        (&format!("https://user:s3cret@{plain}"), "does not speak TLS; begin HTTPS_PROXY with http://"),
        (&foreign_url, "of an authority that is not trusted here"),
    ] {
        for protocol in PROTOCOLS {
            let error = export(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.test"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", &files.path("authority.pem")),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
                ("HTTPS_PROXY", proxy),
            ]);
            let name = proxy.replace("user:s3cret", "[hidden]");
            assert!(error.contains(&format!("the proxy {name} of HTTPS_PROXY")), "{proxy}: {error}");
            assert!(error.contains(sentence) && !error.contains("s3cret"), "{proxy}: {error}");
        }
    }
}
