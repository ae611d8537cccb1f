//! Ways to an endpoint: JSON, proxies, Unix sockets and TLS, against the real Collector where it supports them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp::{self, Protocol, Telemetry};
use support::child::{child, results};
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
    results(child("child_exports_once").envs(set.iter().copied())).remove(0)
}

#[test]
#[ignore = "run by other tests, in a child process"]
fn child_exports_once() {
    let export = || {
        let telemetry = otlp::install()?;
        count(&telemetry);
        telemetry.shutdown()
    };
    match export() {
        Ok(()) => println!("RESULT delivered"),
        Err(error) => println!("RESULT {error}"),
    }
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

/// A proxy that connects every host name to one host and keeps the heads of requests.
struct HttpProxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl HttpProxy {
    fn start(to: SocketAddr, refusal: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = HttpProxy { address: listener.local_addr().unwrap(), heads: Arc::default() };
        let heads = Arc::clone(&proxy.heads);
        // It ends with the process.
        thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let head = head(&mut client);
                heads.lock().unwrap().push(head.clone());
                if let Some(status) = refusal {
                    let _ =
                        write!(client, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    continue;
                }
                let mut server = TcpStream::connect(to).unwrap();
                if head.starts_with("CONNECT ") {
                    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
                } else {
                    server.write_all(head.as_bytes()).unwrap();
                }
                relay(client.try_clone().unwrap(), server.try_clone().unwrap());
                relay(server, client);
            }
        });
        proxy
    }

    fn url(&self, user: &str) -> String {
        format!("http://{user}{}", self.address)
    }

    fn first_head(&self) -> String {
        self.heads.lock().unwrap().first().expect("the proxy was asked").clone()
    }
}

fn head(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
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
fn a_proxy_is_used_for_every_protocol_but_not_for_exceptions() {
    let receiver = Receiver::start();
    let credentials = "dXNlcjpzM2NyZXQ=";
    for (protocol, request) in [
        ("http/protobuf", "POST http://collector.test:4318/v1/metrics HTTP/1.1"),
        ("grpc", "CONNECT collector.test:4318 HTTP/1.1"),
    ] {
        let proxy = HttpProxy::start(receiver.address(), None);
        let set = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.test:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("HTTP_PROXY", &proxy.url("user:s3cret@")),
        ];
        let before = receiver.exports().len();
        assert_eq!(export(&set), "delivered", "{protocol}");
        assert_eq!(receiver.exports().len(), before + 1);
        let head = proxy.first_head();
        assert!(head.starts_with(request), "{head}");
        let expected = format!("proxy-authorization: basic {credentials}").to_ascii_lowercase();
        assert!(head.to_ascii_lowercase().contains(&expected), "{head}");
        let error =
            export(&[&set[..], &[("NO_PROXY", ".test"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")]].concat());
        assert_ne!(error, "delivered", "{protocol}: there is no such host");
        // This machine is reached directly.
        let local = ("OTEL_EXPORTER_OTLP_ENDPOINT", &*receiver.endpoint());
        assert_eq!(export(&[local, set[1], ("http_proxy", "http://127.0.0.1:1")]), "delivered", "{protocol}");
    }
}

#[test]
fn a_proxy_that_refuses_is_named_without_its_password() {
    let to = SocketAddr::from(([127, 0, 0, 1], 1));
    for (status, sentence) in [
        ("407 Proxy Authentication Required", "wants a user and a password; write them into HTTP_PROXY"),
        ("403 Forbidden", "it answered HTTP/1.1 403 Forbidden"),
        ("502 Bad Gateway", "it answered HTTP/1.1 502 Bad Gateway"),
    ] {
        let proxy = HttpProxy::start(to, Some(status));
        let error = export(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.test"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("HTTP_PROXY", &proxy.url("user:s3cret@")),
        ]);
        assert!(error.contains(sentence) && !error.contains("s3cret"), "{error}");
        assert!(
            error.contains(&format!("the proxy http://[hidden]@{} of HTTP_PROXY", proxy.address)),
            "{error}"
        );
        assert!(proxy.first_head().starts_with("CONNECT collector.test:80 "));
    }
}

#[test]
fn the_collector_is_reached_by_tls_through_a_proxy() {
    let files = Certificates::new();
    let server =
        format!("tls: {{cert_file: {}, key_file: {}}}", files.path("server.pem"), files.path("server.key"));
    let Some(collector) = Collector::start(&Config { server, ..Config::default() }) else { return };
    for (protocol, port) in [("grpc", collector.ports().grpc), ("http/protobuf", collector.ports().http)] {
        let proxy = HttpProxy::start(SocketAddr::from(([127, 0, 0, 1], port)), None);
        let result = export(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.test"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", &files.path("authority.pem")),
            ("HTTPS_PROXY", &proxy.url("")),
        ]);
        assert_eq!(result, "delivered", "{protocol}");
        assert!(
            proxy.first_head().starts_with("CONNECT collector.test:443 HTTP/1.1"),
            "{}",
            proxy.first_head()
        );
    }
    assert!(collector.wait_for(|text| text.matches("-> Name: orders").count() == 2, LONG));
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
    let telemetry = otlp::builder().endpoint("unix:///nowhere/otel.sock").build().unwrap();
    count(&telemetry);
    let error = telemetry.shutdown().unwrap_err().to_string();
    assert!(error.contains("unix:///nowhere/otel.sock: no connection: No such file"), "{error}");
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
        let result = export(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1"),
            (name, "/nowhere/at/all.pem"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
        ]);
        // With Mozilla's authorities compiled in, these are the fallback.
        let expected = format!("{name}=/nowhere/at/all.pem: no authority could be read from it");
        assert!(result.starts_with(&expected) || result.contains("no connection"), "{result}");
    }
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
    let flush = || match telemetry.force_flush() {
        Ok(()) => println!("RESULT delivered"),
        Err(error) => println!("RESULT {error}"),
    };
    let replace = |from: &str, to: &str| std::fs::copy(files.join(from), files.join(to)).unwrap();
    flush();
    replace("authority.pem", "now-authority.pem");
    flush();
    replace("client.pem", "now.pem");
    replace("client.key", "now.key");
    flush();
}
