//! Answers of an endpoint are read in every encoding, reported in one readable line, and never show a secret.

use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp::{self, Builder, Protocol};
use support::scripted::{ReadFirst, Scripted, answer};

/// Exports once to this endpoint and returns the result.
fn export(builder: Builder, endpoint: &str, protocol: Protocol) -> Result<(), String> {
    let builder = builder.endpoint(endpoint).protocol(protocol).interval(Duration::from_secs(3600));
    let telemetry = builder.timeout(Duration::from_secs(5)).build().unwrap();
    telemetry.provider().meter("app").u64_counter("orders").build().add(1, &[]);
    let result = telemetry.force_flush().map_err(|error| error.to_string());
    // Only the first result is of interest.
    std::mem::forget(telemetry);
    result
}

fn export_http(endpoint: &str) -> Result<(), String> {
    export(otlp::builder(), endpoint, Protocol::HttpProtobuf)
}

#[track_caller]
fn assert_one_line(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.len() < 1000, "{text}");
}

#[test]
fn every_success_without_a_page_counts_as_delivered() {
    for (media, body) in [
        ("Application/JSON; charset=UTF-8", "{}"),
        ("application/json", ""),
        ("application/json", "not JSON"),
        ("application/protobuf", ""),
        ("APPLICATION/X-PROTOBUF", ""),
        ("text/plain", "OK"),
        ("text/plain;charset=utf-8", "accepted\n"),
        ("application/octet-stream", "\u{0}"),
    ] {
        for status in ["200 OK", "202 Accepted", "204 No Content"] {
            let body = if status.starts_with("204") { "" } else { body };
            let server = Scripted::saying(answer(status, &[("content-type", media)], body));
            assert_eq!(export_http(&server.endpoint()), Ok(()), "{status} {media}");
        }
    }
    let server = Scripted::saying(answer("200 OK", &[], "OK"));
    assert_eq!(export_http(&server.endpoint()), Ok(()), "without a media type");
    for media in ["text/html", "Text/HTML; charset=utf-8"] {
        let page = "<html><head><title>Sign\n in</title></head></html>";
        let server = Scripted::saying(answer("200 OK", &[("content-type", media)], page));
        let error = export_http(&server.endpoint()).unwrap_err();
        assert!(error.ends_with("answered 200 OK with a page of HTML: Sign in"), "{error}");
        assert_one_line(&error);
    }
}

#[test]
fn the_answer_before_a_reset_is_shown() {
    for (status, media, body, shown) in [
        ("413 Payload Too Large", "text/plain", "limit is 1 MiB", "413 Payload Too Large: limit is 1 MiB"),
        (
            "401 Unauthorized",
            "application/json",
            "{\"message\":\"no such key\"}",
            "401 Unauthorized: no such key",
        ),
        ("403 Forbidden", "text/html", "<title>Blocked</title>", "403 Forbidden: a page of HTML: Blocked"),
        ("401 Unauthorized", "Application/X-Protobuf", "\u{8}\u{10}\u{12}\u{3}old", "401 Unauthorized: old"),
        ("400 Bad Request", "text/plain", "\u{1b}[31mno\r\n\r\n  way\u{202e}", "400 Bad Request: [31mno way"),
        (
            "400 Bad Request",
            "text/html",
            "<title>Bad Request</title><p>You speak plain HTTP to an SSL-enabled port.",
            "a page of HTML: Bad Request; it expects TLS; begin the endpoint with https://",
        ),
        (
            "402 Payment Required",
            "text/json; charset=utf-8",
            "{\"error\":\"quota\"}",
            "Payment Required: quota",
        ),
        (
            "400 Bad Request",
            "text/plain",
            "Client sent an HTTP request to an HTTPS server.\n",
            "Client sent an HTTP request to an HTTPS server.; it expects TLS; begin the endpoint with https://",
        ),
    ] {
        let response = answer(status, &[("content-type", media)], body);
        let server = Scripted::start(ReadFirst::Beginning, move |_| response.clone());
        let error = export_http(&server.endpoint()).unwrap_err();
        assert!(error.contains(shown), "{error}");
        assert_one_line(&error);
        assert_eq!(server.requests().len(), 1, "{status}: a retry would not help");
    }
    // Shorter than it says: the connection breaks in the middle of the message.
    let cut = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 100\r\nretry-after: 60\r\n\r\nquota of May"
        .to_vec();
    let server = Scripted::saying(cut);
    let error = export_http(&server.endpoint()).unwrap_err();
    assert!(error.contains("429 Too Many Requests: quota of May"), "{error}");
    // An answer of success counts even if its body breaks off.
    let cut = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 100\r\n\r\n\x0a"
        .to_vec();
    assert_eq!(export_http(&Scripted::saying(cut).endpoint()), Ok(()));
}

/// Frames of HTTP/2: the settings of a server, and an answer to the first request with these headers and this body.
fn http2(status: u8, headers: &[(&str, &str)], body: Option<&str>) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    // The status by its place in the table of HPACK, and headers that are written out.
    let mut block = vec![0x80 | status];
    for (name, value) in headers {
        for (start, text) in [(Some(0), name), (None, value)] {
            block.extend(start);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.bytes());
        }
    }
    let (end_of_headers, end_of_stream) = (4, u8::from(body.is_none()));
    let body = body.map(|body| frame(0, 1, 1, body.as_bytes())).unwrap_or_default();
    [frame(4, 0, 0, &[]), frame(1, end_of_headers | end_of_stream, 1, &block), body].concat()
}

#[test]
fn what_came_in_before_a_reset_is_shown_over_grpc_too() {
    let (ok, not_found) = (8, 13);
    let grpc = ("content-type", "application/grpc");
    for (answer, shown) in [
        (
            http2(ok, &[grpc, ("grpc-status", "7"), ("grpc-message", "no%20such%0akey")], None),
            "answered PermissionDenied: no such key",
        ),
        (
            http2(ok, &[grpc, ("grpc-status", "8"), ("grpc-message", "limit is 1 MiB")], None),
            "answered ResourceExhausted: limit is 1 MiB",
        ),
        (
            http2(not_found, &[("content-type", "text/html")], Some("<h1>Not found</h1>")),
            "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        ),
        (
            http2(ok, &[("content-type", "text/html")], Some("<h1>Welcome</h1>")),
            "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        ),
    ] {
        for first in [ReadFirst::Beginning, ReadFirst::Whole] {
            let answer = answer.clone();
            let server = Scripted::start(first, move |_| answer.clone());
            let error = export(otlp::builder(), &server.endpoint(), Protocol::Grpc).unwrap_err();
            assert!(error.contains(shown), "{first:?}: {error}");
            assert_one_line(&error);
        }
    }
}

#[test]
fn a_redirection_names_its_target_without_secrets() {
    for status in ["308 Permanent Redirect", "301 Moved Permanently", "307 Temporary Redirect"] {
        let location =
            "https://user:s3cret@collector.example:4318/in/0123456789abcdefghijklmnop?token=s3cret";
        let body = "<title>Moved</title>";
        let headers = [("location", location), ("content-type", "text/html")];
        let server = Scripted::saying(answer(status, &headers, body));
        let error = export_http(&server.endpoint()).unwrap_err();
        let expected = format!(
            "answered {status}; it has moved to https://[hidden]@collector.example:4318/in/[hidden]?[hidden], which the endpoint must name"
        );
        assert!(error.ends_with(&expected), "{error}");
    }
}

#[test]
fn a_redirection_may_leave_out_what_stays() {
    for (location, place) in [
        ("/v1/metrics/", "http://HOST/v1/metrics/"),
        ("metrics/", "http://HOST/v1/metrics/"),
        ("//h.example/in", "http://h.example/in"),
        ("HTTPS://h.example/in", "HTTPS://h.example/in"),
        (" /in ", "http://HOST/in"),
        ("/in?token=s3cret", "http://HOST/in?[hidden]"),
    ] {
        let server = Scripted::saying(answer("308 Permanent Redirect", &[("location", location)], ""));
        let error = export_http(&server.endpoint()).unwrap_err();
        let place = place.replace("HOST", &server.address().to_string());
        let expected = format!("it has moved to {place}, which the endpoint must name");
        assert!(error.ends_with(&expected), "{location}: {error}");
    }
}

#[test]
fn a_wrong_path_has_its_hint() {
    let server = Scripted::saying(answer("404 Not Found", &[], "404 page not found"));
    let error = export_http(&server.endpoint()).unwrap_err();
    assert!(error.ends_with("/v1/metrics answered 404 Not Found: 404 page not found"), "{error}");
}

#[test]
fn another_protocol_is_named_in_the_error() {
    let tls_alert = vec![0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46];
    let http2 = vec![0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 5, 0, 0, 64, 0];
    let http1 = answer("400 Bad Request", &[], "");
    for (protocol, first, sentence) in [
        (Protocol::HttpProtobuf, tls_alert.clone(), "expects TLS; begin the endpoint with https://"),
        (Protocol::Grpc, tls_alert, "expects TLS; begin the endpoint with https://"),
        (
            Protocol::HttpProtobuf,
            http2,
            "speaks HTTP/2 only, hence gRPC; set OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
        ),
        (
            Protocol::Grpc,
            http1,
            "answers in HTTP/1.1, which is not gRPC; set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        ),
        (Protocol::HttpProtobuf, b"SSH-2.0-OpenSSH_9\r\n".to_vec(), "is this the port of a collector?"),
        (Protocol::Grpc, b"+PONG\r\n+PONG\r\n".to_vec(), "is this the port of a collector?"),
    ] {
        let server = Scripted::saying(first);
        let error = export(otlp::builder(), &server.endpoint(), protocol).unwrap_err();
        assert!(error.contains(sentence), "{protocol:?}: {error}");
        assert_one_line(&error);
    }
    // A TLS server that closes without an answer.
    for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
        let server = Scripted::start(ReadFirst::Beginning, |_| Vec::new());
        let error = export(otlp::builder(), &server.endpoint(), protocol).unwrap_err();
        assert!(error.contains("if it expects TLS, begin the endpoint with https://"), "{error}");
    }
}
