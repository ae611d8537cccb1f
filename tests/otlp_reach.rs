//! Ways to an endpoint: JSON, proxies, Unix sockets and TLS, against the real Collector where it supports them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp::{self, Protocol, Telemetry};
use support::child::{child, export_once, report, results};
use support::collector::{Collector, Config};
use support::receiver::{Answer, Receiver};

#[path = "support/certificates.rs"]
mod certificates;
use certificates::Certificates;

const LONG: Duration = Duration::from_secs(20);

fn count(telemetry: &Telemetry) {
    telemetry.provider().meter("app").u64_counter("orders").build().add(3, &[]);
}

/// Exports once in a child process with these variables, and returns the result.
fn export(set: &[(&str, &str)]) -> String {
    export_once(set).remove(0)
}

#[test]
#[ignore = "run by other tests, in a child process"]
fn child_exports_once() {
    let export = || {
        let telemetry = otlp::install()?;
        count(&telemetry);
        telemetry.shutdown()
    };
    report(export());
}

#[test]
fn the_collector_takes_json() {
    let Some(collector) = Collector::start(&Config::default()) else { return };
    for compression in ["none", "gzip"] {
        let output = child("child_exports_json")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", collector.ports().http))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
            .env("OTEL_SERVICE_NAME", "shop")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let all = |text: &str| text.matches("-> Name: last").count() == 2;
    assert!(collector.wait_for(all, LONG), "{}", collector.printed());
    assert_eq!(collector.values("orders"), [3.0; 2]);
    assert_eq!(collector.values("temperature"), [-1.5; 2]);
    let printed = collector.printed();
    for text in ["-> service.name: Str(shop)", "-> Name: waiting", "Sum: 7.000000", "-> city: Str(K\u{f6}ln)"]
    {
        assert_eq!(printed.matches(text).count(), 2, "{text}: {printed}");
    }
    assert!(
        printed.contains("-> Name: tokio.task.count") || printed.contains("-> Name: process.cpu.time"),
        "{printed}"
    );
}

#[test]
#[ignore = "run by another test, in a child process"]
fn child_exports_json() {
    let telemetry = otlp::install().unwrap();
    opentelemetry_instrumentation_runtime::init_runtime_metrics(&telemetry.meter());
    count(&telemetry);
    let meter = telemetry.provider().meter("app");
    let city = [opentelemetry::KeyValue::new("city", "K\u{f6}ln")];
    meter.f64_gauge("temperature").build().record(-1.5, &city);
    // JSON has no such numbers.
    meter.f64_gauge("unknown").build().record(f64::NAN, &[]);
    meter.f64_gauge("endless").build().record(f64::INFINITY, &[]);
    meter.f64_histogram("waiting").build().record(7.0, &[]);
    meter.i64_up_down_counter("last").build().add(-1, &[]);
    telemetry.shutdown().unwrap();
}

/// Copies until one side closes.
fn relay(mut from: impl Read + Send + 'static, mut to: impl Write + Send + 'static) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
    });
}

#[test]
#[cfg(unix)]
fn a_unix_socket_is_an_endpoint() {
    use std::os::unix::net::UnixListener;
    let receiver = Receiver::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("otel.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let to = receiver.address();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(to).unwrap();
            relay(client.try_clone().unwrap(), server.try_clone().unwrap());
            relay(server, client);
        }
    });
    let endpoint = format!("unix://{}", path.display());
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let telemetry = otlp::builder().endpoint(&endpoint).protocol(protocol).build().unwrap();
        count(&telemetry);
        telemetry.shutdown().unwrap();
    }
    let paths: Vec<_> = receiver.exports().iter().map(|export| export.path.clone()).collect();
    assert_eq!(paths.last().map(String::as_str), Some("/v1/metrics"));
    assert_eq!(paths.len(), 2);
}

#[test]
#[cfg(unix)]
fn the_collector_is_reached_by_unix_sockets() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { sockets: Some(directory.path().into()), ..Config::default() };
    let Some(collector) = Collector::start(&config) else { return };
    let mut exports = 0;
    for (protocol, socket) in
        [("grpc", "grpc.sock"), ("http/protobuf", "http.sock"), ("http/json", "http.sock")]
    {
        // Both ways to write it.
        for scheme in ["unix://", "unix:"] {
            let result = export(&[
                (
                    "OTEL_EXPORTER_OTLP_ENDPOINT",
                    &format!("{scheme}{}", directory.path().join(socket).display()),
                ),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                // A socket is on this machine.
                ("HTTP_PROXY", "http://127.0.0.1:1"),
            ]);
            assert_eq!(result, "delivered", "{protocol}");
            exports += 1;
            let arrived = |text: &str| text.matches("-> Name: orders").count() == exports;
            assert!(collector.wait_for(arrived, LONG), "{protocol}: {}", collector.printed());
        }
    }
    // The socket of the other protocol.
    for (protocol, socket) in [("grpc", "http.sock"), ("http/protobuf", "grpc.sock")] {
        let endpoint = format!("unix://{}", directory.path().join(socket).display());
        let set = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)];
        let error = export(&set);
        assert!(error.contains("OTEL_EXPORTER_OTLP_PROTOCOL") && error.contains(&endpoint), "{error}");
    }
}

#[test]
#[cfg(unix)]
fn a_unix_socket_that_cannot_be_reached_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let dead = directory.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    for (endpoint, why) in [
        ("unix:///nowhere/otel.sock".to_owned(), "No such file"),
        (format!("unix://{}", dead.display()), "refused"),
        (format!("unix://{}", directory.path().display()), "no connection"),
    ] {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let telemetry = otlp::builder().endpoint(&endpoint).protocol(protocol).build().unwrap();
            count(&telemetry);
            let error = telemetry.shutdown().unwrap_err().to_string();
            assert!(
                error.contains(&format!("{endpoint}: no connection: ")) && error.contains(why),
                "{error}"
            );
        }
    }
}

#[test]
fn a_header_can_come_from_a_function() {
    let receiver = Receiver::start();
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let token = Arc::new(Mutex::new("first".to_owned()));
        let current = Arc::clone(&token);
        let builder = otlp::builder().endpoint(receiver.endpoint()).protocol(protocol);
        let builder =
            builder.header_fn("authorization", move || format!("Bearer {}\n", current.lock().unwrap()));
        let telemetry = builder.build().unwrap();
        count(&telemetry);
        telemetry.force_flush().unwrap();
        assert_eq!(receiver.last().unwrap().headers["authorization"], "Bearer first");
        *token.lock().unwrap() = "the second token".into();
        let message = "no token like the second token";
        receiver.answer([Answer::Refuse {
            http: 401,
            grpc: tonic::Code::Unauthenticated,
            after: None,
            message,
        }]);
        let error = telemetry.force_flush().unwrap_err().to_string();
        assert!(!error.contains("second"), "{error}");
        telemetry.shutdown().unwrap();
        assert_eq!(receiver.last().unwrap().headers["authorization"], "Bearer the second token");
    }
}

#[test]
fn each_mistake_of_tls_has_its_sentence() {
    let files = Certificates::new();
    let authority = files.path("authority.pem");
    let Some(plain) = Collector::start(&Config::default()) else { return };
    let tls = |name: &str| {
        let server = format!(
            "tls: {{cert_file: {}, key_file: {}}}",
            files.path(&format!("{name}.pem")),
            files.path(&format!("{name}.key"))
        );
        Collector::start(&Config { server, ..Config::default() }).unwrap()
    };
    let (good, own, own_authority) = (tls("server"), tls("self"), tls("selfca"));
    let unknown =
        "self-signed or of an authority that is not trusted here; set OTEL_EXPORTER_OTLP_CERTIFICATE";
    for (collector, scheme, trusted, sentence) in [
        (&plain, "https", &authority, "does not speak TLS; begin the endpoint with http://"),
        (&good, "http", &authority, "begin the endpoint with https://"),
        (&own, "https", &authority, unknown),
        (&own_authority, "https", &files.path("selfca.pem"), "give it one that is issued with CA:FALSE"),
        (&own, "https", &files.path("self.pem"), "delivered"),
        (&good, "https", &authority, "delivered"),
    ] {
        for (protocol, port) in [("grpc", collector.ports().grpc), ("http/protobuf", collector.ports().http)]
        {
            let result = export(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("{scheme}://localhost:{port}")),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", trusted),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
            ]);
            assert!(result.contains(sentence), "{scheme} {protocol}: {result}");
            eprintln!("{scheme} {protocol}: {result}");
        }
    }
    // The other protocol, without TLS and with it.
    for (collector, scheme) in [(&plain, "http"), (&good, "https")] {
        let (grpc, http) = (collector.ports().grpc, collector.ports().http);
        for (protocol, port) in [("grpc", http), ("http/protobuf", grpc)] {
            let result = export(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("{scheme}://localhost:{port}")),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", &authority),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
            ]);
            assert!(
                result.contains("OTEL_EXPORTER_OTLP_PROTOCOL") || result.contains("no OTLP service"),
                "{scheme} {protocol}: {result}"
            );
        }
    }
}

#[test]
fn a_file_of_the_system_that_is_not_there_is_named() {
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        let lines =
            results(child("child_logs").envs([
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1"),
                (name, "/nowhere/at/all.pem"),
            ]));
        // With Mozilla's authorities compiled in there is something to fall back on. The error without them is a unit
        // test of `roots`.
        let expected =
            format!("{name}=/nowhere/at/all.pem: no authority could be read from it: No such file");
        assert!(lines.iter().any(|line| line.starts_with("WARN ") && line.contains(&expected)), "{lines:?}");
    }
}

#[test]
fn the_authorities_of_the_system_are_those_of_its_variables() {
    let files = Certificates::new();
    let server =
        format!("tls: {{cert_file: {}, key_file: {}}}", files.path("server.pem"), files.path("server.key"));
    let Some(collector) = Collector::start(&Config { server, ..Config::default() }) else { return };
    let endpoint = format!("https://localhost:{}", collector.ports().http);
    let lines = |file: &str, directory: Option<&str>| {
        let mut child = child("child_logs");
        child.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).env("SSL_CERT_FILE", files.path(file));
        results(child.envs(directory.map(|path| ("SSL_CERT_DIR", path))))
    };
    assert_eq!(lines("authority.pem", None), ["delivered"]);
    // Some authorities are found, but not all that were meant.
    let lines_of_both = lines("authority.pem", Some("/nowhere"));
    assert_eq!(lines_of_both.len(), 2, "{lines_of_both:?}");
    assert!(lines_of_both.contains(&"delivered".to_owned()), "{lines_of_both:?}");
    assert!(
        lines_of_both.iter().any(|line| line.contains("SSL_CERT_DIR=/nowhere: no authority")),
        "{lines_of_both:?}"
    );
    assert!(lines("other.pem", None)[0].contains("set OTEL_EXPORTER_OTLP_CERTIFICATE"));
}

#[test]
#[ignore = "run by other tests, in a child process"]
fn child_logs() {
    support::log::listen();
    let export = || {
        let telemetry = otlp::install()?;
        for line in support::log::take().iter().filter(|line| line.starts_with("WARN ")) {
            println!("RESULT {line}");
        }
        count(&telemetry);
        telemetry.force_flush()
    };
    report(export());
}

#[test]
fn certificates_are_read_again_when_they_were_replaced() {
    let files = Certificates::new();
    let config = Config { server: files.collector(), ..Config::default() };
    let Some(collector) = Collector::start(&config) else { return };
    for (protocol, port) in [("grpc", collector.ports().grpc), ("http/protobuf", collector.ports().http)] {
        for (from, to) in
            [("other.pem", "now-authority.pem"), ("foreign.pem", "now.pem"), ("foreign.key", "now.key")]
        {
            files.copy(from, to);
        }
        let lines = results(
            child("child_renews")
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://localhost:{port}"))
                .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
                .env("OTEL_EXPORTER_OTLP_CERTIFICATE", files.path("now-authority.pem"))
                .env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", files.path("now.pem"))
                .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", files.path("now.key"))
                .env("FILES", files.directory()),
        );
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[0].contains("has a certificate that is self-signed or of an authority that is not trusted"),
            "{lines:?}"
        );
        assert!(lines[1].contains("refuses the client certificate"), "{lines:?}");
        assert_eq!(lines[2], "delivered", "{lines:?}");
    }
}

#[test]
#[ignore = "run by another test, in a child process"]
fn child_renews() {
    let files = std::path::PathBuf::from(std::env::var_os("FILES").unwrap());
    let telemetry = otlp::install().unwrap();
    count(&telemetry);
    let flush = || report(telemetry.force_flush());
    let replace = |from: &str, to: &str| std::fs::copy(files.join(from), files.join(to)).unwrap();
    flush();
    replace("authority.pem", "now-authority.pem");
    flush();
    replace("client.pem", "now.pem");
    replace("client.key", "now.key");
    flush();
}
