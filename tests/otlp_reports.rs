//! Tries the faults that users reported of other exporters. Prints a table with a row for each: the input and the result.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp::{self, Builder, Protocol, Telemetry};
use opentelemetry_instrumentation_runtime::{RuntimeMetrics, debug, init_runtime_metrics};
use support::child::{child, outcome, report, results};
use support::http::{Answer as DebugAnswer, request};
use support::receiver::{Answer, Receiver};
use support::scripted::{ReadFirst, Scripted, answer};

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/http_proxy.rs"]
mod http_proxy;
use certificates::Certificates;
use http_proxy::{Behaviour, HttpProxy};

/// One row for each input, in the order of the reports.
struct Table(Vec<(u32, String)>);

impl Table {
    fn print_head() {
        eprintln!("\n{:>2}  {:<66}  what happens", "", "input");
    }

    /// Prints the result, which must contain the right words and none of the wrong ones.
    #[track_caller]
    fn row(&mut self, entry: u32, input: &str, happens: &str, right: &[&str], wrong: &[&str]) {
        eprintln!("{entry:>2}  {input:<66}  {happens}");
        for words in right {
            assert!(happens.contains(words), "{entry}, {input}: {words} is not in {happens}");
        }
        for words in wrong {
            assert!(!happens.contains(words), "{entry}, {input}: {words} is in {happens}");
        }
        self.0.push((entry, input.to_owned()));
    }
}

#[test]
fn every_report() {
    Table::print_head();
    let mut table = Table(Vec::new());
    secrets(&mut table);
    answers(&mut table);
    what_the_configuration_ignores(&mut table);
    what_the_configuration_refuses(&mut table);
    tls(&mut table);
    renewal(&mut table);
    process(&mut table);
    consumers(&mut table);
    let mut entries: Vec<_> = table.0.iter().map(|(entry, _)| *entry).collect();
    entries.dedup();
    assert_eq!(entries, (1..=20).collect::<Vec<_>>());
    eprintln!("21  memory.high without memory.max: the unit tests of `source::limits::cgroup`");
}

/// Exports once in a child process, and returns the result and the warnings.
fn install(set: &[(&str, &str)]) -> String {
    results(child("child_installs").envs(set.iter().copied())).join(" | ")
}

#[test]
#[ignore = "run by another test, in a child process"]
fn child_installs() {
    support::log::listen();
    let export = || {
        let telemetry = otlp::install()?;
        count(&telemetry);
        let result = telemetry.force_flush();
        std::mem::forget(telemetry);
        result
    };
    report(export());
    for line in support::log::take().iter().filter(|line| line.starts_with("WARN ")) {
        println!("RESULT {line}");
    }
}

fn count(telemetry: &Telemetry) {
    telemetry.provider().meter("app").u64_counter("orders").build().add(3, &[]);
}

/// So long that only a flush exports.
fn telemetry(builder: Builder, endpoint: &str, protocol: Protocol) -> Telemetry {
    let builder = builder.endpoint(endpoint).protocol(protocol).interval(Duration::from_secs(3600));
    let telemetry = builder.timeout(Duration::from_secs(20)).build().unwrap();
    count(&telemetry);
    telemetry
}

fn flush(telemetry: &Telemetry) -> String {
    outcome(telemetry.force_flush())
}

fn export(builder: Builder, endpoint: &str, protocol: Protocol) -> String {
    let telemetry = telemetry(builder, endpoint, protocol);
    let result = flush(&telemetry);
    std::mem::forget(telemetry);
    result
}

fn export_http(endpoint: &str) -> String {
    export(otlp::builder(), endpoint, Protocol::HttpProtobuf)
}

fn secrets(table: &mut Table) {
    let headers = "OTEL_EXPORTER_OTLP_HEADERS";
    for (value, entry) in [
        ("Authorization: Basic c2VjcmV0==", "entry 1"),
        ("api-key=c2VjcmV0,tail==", "entry 2"),
        ("x=1,Bearer c2VjcmV0", "entry 2"),
    ] {
        let happens = install(&[(headers, value)]);
        let right = ["OTEL_EXPORTER_OTLP_HEADERS=[hidden]: ", entry];
        table.row(1, &format!("{headers}='{value}'"), &happens, &right, &["c2VjcmV0", "tail"]);
    }
    for (name, value) in [
        ("CLIENT_KEY", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"),
        ("CLIENT_CERTIFICATE", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2VjcmV0"),
        ("CERTIFICATE", "/c2VjcmV0aB3dE5fG7hJ9kL1mN3pQ5rS7"),
    ] {
        let name = format!("OTEL_EXPORTER_OTLP_{name}");
        let happens = install(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1"), (&name, value)]);
        let input = format!("{name}='{}'", value.replace('\n', " "));
        table.row(2, &input, &happens, &["=[hidden]: it must be the name of a PEM file"], &["c2VjcmV0"]);
    }
    let token: String = (0..800_u32).map(|index| char::from(b'a' + (index * index % 25) as u8)).collect();
    let echo = format!("no such token: {token}");
    let server = Scripted::saying(answer("401 Unauthorized", &[], &echo));
    let builder = otlp::builder().header("authorization", format!("Bearer {token}"));
    let happens = export(builder, &server.endpoint(), Protocol::HttpProtobuf);
    let right = ["401 Unauthorized: no such token: [hidden]"];
    table.row(
        3,
        "401 that echoes a token of 800 characters",
        &happens,
        &right,
        &[&token[..8], &token[300..308]],
    );
    let server = Scripted::saying(answer("404 Not Found", &[], ""));
    let endpoint = format!("{}/in/0123456789abcdefghijklmn", server.endpoint());
    let happens = export_http(&endpoint);
    table.row(
        3,
        "an endpoint with a token in its path",
        &happens,
        &["/in/[hidden]/v1/metrics"],
        &["0123456789ab"],
    );
}

/// In a child process, since the log belongs to the process.
#[test]
#[ignore = "run by another test, in a child process"]
fn child_is_rejected() {
    support::log::listen();
    let receiver = Receiver::start();
    let reject = |points, message| Answer::Reject { points, message };
    receiver.answer([reject(0, "use gzip"), reject(40, "too old"), Answer::Take]);
    let grpc = telemetry(otlp::builder(), &receiver.endpoint(), Protocol::Grpc);
    let body = r#"{"partialSuccess":{"rejectedDataPoints":"40"}}"#;
    let server = Scripted::saying(answer("200 OK", &[("content-type", "application/json")], body));
    let json = telemetry(otlp::builder(), &server.endpoint(), Protocol::HttpProtobuf);
    for (name, telemetry, exports) in [("GRPC", &grpc, 3), ("JSON", &json, 1)] {
        for _ in 0..exports {
            assert_eq!(flush(telemetry), "delivered");
        }
        println!("RESULT {name} {}", support::log::take().join(" | "));
    }
}

fn answers(table: &mut Table) {
    let lines = results(&mut child("child_is_rejected"));
    let (grpc, json) = (lines[0].trim_start_matches("GRPC "), lines[1].trim_start_matches("JSON "));
    let right = ["says: use gzip", "rejects 40 points: too old", "40 points were rejected"];
    table.row(4, "0 rejected with a message, then 40, then none", grpc, &right, &["rejects 0"]);
    table.row(5, "200 in JSON, 40 rejected", json, &["rejects 40 points"], &[]);
    for (media, body) in [
        ("Application/JSON; charset=UTF-8", "{}"),
        ("application/protobuf", ""),
        ("text/plain", "OK"),
        ("application/x-protobuf", "OK"),
    ] {
        let server = Scripted::saying(answer("200 OK", &[("content-type", media)], body));
        table.row(
            6,
            &format!("200, {media}, '{body}'"),
            &export_http(&server.endpoint()),
            &["delivered"],
            &["not"],
        );
    }
    for (status, body) in [("413 Payload Too Large", "limit 1 MiB"), ("401 Unauthorized", "no such key")] {
        let response = answer(status, &[], body);
        let server = Scripted::start(ReadFirst::Beginning, move |_| response.clone());
        let input = format!("{status}, and the connection is closed at once");
        table.row(7, &input, &export_http(&server.endpoint()), &[status, body], &[]);
    }
    let response = answer("400 Bad Request", &[], "Client sent an HTTP request to an HTTPS server.\n");
    let server = Scripted::start(ReadFirst::Beginning, move |_| response.clone());
    let right = ["Client sent an HTTP request to an HTTPS server.", "begin the endpoint with https://"];
    table.row(7, "plain HTTP to a port that expects TLS", &export_http(&server.endpoint()), &right, &[]);
    for (location, named) in [
        ("https://collector.example:4318/v1/metrics", "https://collector.example:4318/v1/metrics"),
        ("/v1/metrics/", "/v1/metrics/"),
        ("//collector.example/x", "http://collector.example/x"),
    ] {
        let headers = [("location", location), ("content-type", "text/html")];
        let server = Scripted::saying(answer("308 Permanent Redirect", &headers, "<h1>Moved</h1>"));
        let named =
            if named.starts_with('/') { format!("{}{named}", server.endpoint()) } else { named.into() };
        let right = ["308 Permanent Redirect", &*format!("it has moved to {named},")];
        table.row(8, &format!("308 to {location}"), &export_http(&server.endpoint()), &right, &["[hidden]"]);
    }
}

fn what_the_configuration_ignores(table: &mut Table) {
    let receiver = Receiver::start();
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", &*receiver.endpoint());
    for name in ["Content-Length", "Transfer-Encoding", "Content-Encoding", "Connection", "Host"] {
        let happens = install(&[endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", &format!("{name}=0"))]);
        let right = [&*format!("sets {}, which only the exporter may set", name.to_ascii_lowercase())];
        table.row(9, &format!("header {name}=0"), &happens, &right, &["delivered"]);
    }
    for name in ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT"] {
        table.row(10, &format!("{name}=0"), &install(&[endpoint, (name, "0")]), &["delivered"], &["WARN"]);
    }
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "1"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_METRICS_EXPORTER", "otlp,prometheus"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/xml"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "60s"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sometimes"),
    ] {
        let happens = install(&[endpoint, (name, value)]);
        let input = format!("{name}={value}");
        table.row(11, &input, &happens, &["delivered | WARN ", &input], &[]);
        assert_eq!(happens.matches("WARN ").count(), 1, "{happens}");
    }
    let value = "service.name=,foo=bar,spam";
    let happens = install(&[endpoint, ("OTEL_RESOURCE_ATTRIBUTES", value)]);
    let last = receiver.last().unwrap();
    let resource = ["service.name", "foo"].map(|key| last.resource(key).unwrap_or_default()).join(", ");
    let right = ["delivered | WARN ", "left out: entry 3", "; unknown_service:", ", bar"];
    let input = format!("OTEL_RESOURCE_ATTRIBUTES='{value}'");
    table.row(12, &input, &format!("{happens}; {resource}"), &right, &[]);
}

fn what_the_configuration_refuses(table: &mut Table) {
    let https = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1");
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        let happens = install(&[https, ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"), (name, "/nowhere")]);
        // With the authorities of Mozilla it is a warning, else the same sentence is an error.
        let right = [&*format!("{name}=/nowhere: no authority could be read from it: No such file")];
        table.row(13, &format!("{name}=/nowhere"), &happens, &right, &["this system has no"]);
    }
}

fn tls(table: &mut Table) {
    let files = Certificates::new();
    let receiver = Receiver::start();
    let server = |name: &str| {
        let behaviour = Behaviour::Connect(receiver.address());
        HttpProxy::over_tls(
            behaviour,
            &files.path(&format!("{name}.pem")),
            &files.path(&format!("{name}.key")),
        )
    };
    let (good, own, authority) = (server("server"), server("self"), server("selfca"));
    let https = |address: SocketAddr| format!("https://localhost:{}", address.port());
    let http = |address: SocketAddr| format!("http://localhost:{}", address.port());
    let trust = |name: &str| ("OTEL_EXPORTER_OTLP_CERTIFICATE", files.path(name));
    let timeout = ("OTEL_EXPORTER_OTLP_TIMEOUT", "5000");
    let tls = "begin the endpoint with https://";
    for (input, endpoint, protocol, trusted, right) in [
        (
            "a self-signed receiver",
            https(own.address()),
            "http/protobuf",
            trust("authority.pem"),
            "set OTEL_EXPORTER_OTLP_CERTIFICATE",
        ),
        (
            "a receiver with an authority's own certificate",
            https(authority.address()),
            "grpc",
            trust("selfca.pem"),
            "CA:FALSE",
        ),
        (
            "https to a plain port",
            https(receiver.address()),
            "http/protobuf",
            trust("authority.pem"),
            "begin the endpoint with http://",
        ),
        ("gRPC to a TLS port", http(good.address()), "grpc", trust("authority.pem"), tls),
        ("HTTP to a TLS port", http(good.address()), "http/protobuf", trust("authority.pem"), tls),
        ("TLS as it should be", https(good.address()), "http/protobuf", trust("authority.pem"), "delivered"),
    ] {
        let set = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            (trusted.0, &*trusted.1),
            timeout,
        ];
        table.row(14, input, &install(&set), &[right], &[]);
    }
    let encrypted = files.directory().join("encrypted.key");
    std::fs::write(
        &encrypted,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    let happens = install(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &https(good.address())),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &files.path("client.pem")),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", encrypted.to_str().unwrap()),
    ]);
    table.row(14, "an encrypted key", &happens, &["the key is encrypted; decrypt it"], &[]);
}

fn renewal(table: &mut Table) {
    let receiver = Receiver::start();
    let token = Arc::new(Mutex::new("first"));
    let current = Arc::clone(&token);
    let builder = otlp::builder().header_fn("authorization", move || (*current.lock().unwrap()).to_owned());
    let telemetry = telemetry(builder, &receiver.endpoint(), Protocol::Grpc);
    let mut sent = Vec::new();
    for next in ["second", "third"] {
        assert_eq!(flush(&telemetry), "delivered");
        sent.push(receiver.last().unwrap().headers["authorization"].clone());
        *token.lock().unwrap() = next;
    }
    table.row(15, "a token that is replaced", &sent.join(", then "), &["first, then second"], &[]);
    let files = Certificates::new();
    let behaviour = Behaviour::Connect(receiver.address());
    let server = HttpProxy::over_tls(behaviour, &files.path("server.pem"), &files.path("server.key"));
    files.copy("other.pem", "now.pem");
    let happens = results(
        child("child_renews")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://localhost:{}", server.address().port()))
            .env("OTEL_EXPORTER_OTLP_CERTIFICATE", files.path("now.pem"))
            .env("FILES", files.directory()),
    );
    table.row(
        15,
        "an authority that is replaced",
        &happens.join(", then "),
        &["not trusted", ", then delivered"],
        &[],
    );
}

#[test]
#[ignore = "run by another test, in a child process"]
fn child_renews() {
    let files = std::path::PathBuf::from(std::env::var_os("FILES").unwrap());
    let telemetry = otlp::install().unwrap();
    count(&telemetry);
    println!("RESULT {}", flush(&telemetry));
    std::fs::copy(files.join("authority.pem"), files.join("now.pem")).unwrap();
    println!("RESULT {}", flush(&telemetry));
}

fn process(table: &mut Table) {
    let receiver = Receiver::start();
    let lines = results(child("child_forks").env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint()));
    let ids: Vec<_> =
        receiver.exports().iter().map(|export| export.resource("service.instance.id")).collect();
    assert!(ids.len() == 3 && ids.iter().all(Option::is_some), "{ids:?}");
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    let happens = format!("{} processes, {} identities", ids.len(), distinct.len());
    table.row(
        16,
        "workers that are forked and install an exporter",
        &happens,
        &["3 processes, 3 identities"],
        &[],
    );
    let happens = lines.join("; ");
    let right = if cfg!(target_os = "linux") { "otlp-export blocks SIGTERM" } else { "" };
    table.row(17, "main waits for SIGTERM with sigwait", &happens, &[right], &[]);
}

#[test]
#[cfg(unix)]
#[ignore = "run by another test, in a child process"]
#[allow(unsafe_code, reason = "there is no other way to fork")]
fn child_forks() {
    for _ in 0..2 {
        let export = || {
            let telemetry = otlp::install().unwrap();
            count(&telemetry);
            telemetry.shutdown().is_ok()
        };
        // SAFETY: the fork has this thread alone, and no other thread of this process was started by the test.
        match unsafe { libc::fork() } {
            0 => {
                let is_fine = std::panic::catch_unwind(export).unwrap_or(false);
                // SAFETY: it ends the fork at once.
                unsafe { libc::_exit(i32::from(!is_fine)) };
            }
            fork => {
                let mut status = 0;
                // SAFETY: it is a child of this process, and the status can be written to.
                unsafe { libc::waitpid(fork, &raw mut status, 0) };
                assert_eq!(status, 0);
            }
        }
    }
    let telemetry = otlp::install().unwrap();
    count(&telemetry);
    println!("RESULT {}", flush(&telemetry));
    #[cfg(target_os = "linux")]
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        let blocked = u64::from_str_radix(field("SigBlk:"), 16).unwrap() & 1 << (libc::SIGTERM - 1) != 0;
        if field("Name:") == "otlp-export" {
            println!("RESULT otlp-export {} SIGTERM", if blocked { "blocks" } else { "takes" });
        }
    }
    std::mem::forget(telemetry);
}

fn consumers(table: &mut Table) {
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("app"));
    let server = debug::builder(&metrics).allow_remote(true).serve("0.0.0.0:0").unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], server.local_addr().port()));
    let get = |host: &str| {
        DebugAnswer::read(request(address, &format!("GET /debug/vars HTTP/1.1\r\nHost: {host}\r\n\r\n")))
    };
    let vars: serde_json::Value = serde_json::from_str(&get("127.0.0.1").body).unwrap();
    let keys = ["StackInuse", "MSpanInuse", "MCacheInuse", "HeapInuse", "Mallocs", "NumGC"];
    let happens = keys.map(|key| format!("{key}={}", vars["memstats"][key])).join(" ");
    table.row(18, "/debug/vars, read by Netdata's go_expvar", &happens, &keys, &["null"]);
    for (host, status) in [("10.1.2.3", "200"), ("[::ffff:127.0.0.1]", "200"), ("evil.example", "403")] {
        let happens = get(host).status.to_string();
        table.row(19, &format!("debug on 0.0.0.0, asked as {host}"), &happens, &[status], &[]);
    }
    server.stop();
    let metrics = init_runtime_metrics(&opentelemetry::global::meter("app"));
    let debug = format!("{metrics:?}");
    let happens = debug.split_once("\"export\": ").map_or("on", |(_, rest)| rest);
    table.row(20, "init_runtime_metrics before the provider is set", happens, &["meter"], &["on"]);
}
