//! Answers of an endpoint are read in every encoding, reported in one readable line, and never show a secret.

use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp::{self, Builder, Protocol};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::receiver::{Answer, Receiver};
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

/// The ways in which a server may encode an echo.
fn forms(secret: &str) -> Vec<String> {
    let percent = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let unicode = |text: &str| text.bytes().map(|byte| format!("\\u{byte:04x}")).collect::<String>();
    let html = |text: &str| text.bytes().map(|byte| format!("&#{byte};")).collect::<String>();
    let json = serde_json::to_string(secret).unwrap();
    let wrapped: Vec<_> = base64(secret.as_bytes())
        .as_bytes()
        .chunks(20)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    vec![
        secret.to_owned(),
        secret.to_ascii_uppercase(),
        percent(secret),
        percent(&percent(secret)),
        unicode(secret),
        html(secret),
        json.clone(),
        serde_json::to_string(&json).unwrap(),
        base64(secret.as_bytes()),
        base64(format!("x{secret}").as_bytes()),
        base64(format!("xy{secret}").as_bytes()).replace('+', "-").replace('/', "_"),
        wrapped.join("\r\n"),
        secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
        format!("{secret}{secret}"),
    ]
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        (0..4)
            .map(|digit| match digit <= group.len() {
                true => char::from(ALPHABET[(bits >> (18 - 6 * digit) & 63) as usize]),
                false => '=',
            })
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// True if the text shows eight characters in a row of one of the forms of the secret.
fn shows(text: &str, secret: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let mut forms = forms(secret);
    forms.retain(|form| !form.contains("\r\n"));
    forms.iter().any(|form| {
        let form = form.to_ascii_lowercase();
        let form: Vec<char> = form.chars().collect();
        form.windows(form.len().min(24)).any(|part| text.contains(&part.iter().collect::<String>()))
    }) || secret
        .to_ascii_lowercase()
        .as_bytes()
        .windows(secret.len().min(8))
        .any(|part| text.contains(&*String::from_utf8_lossy(part)))
}

#[test]
fn a_long_token_that_is_echoed_is_not_shown() {
    let token: String = (0..800).map(|index| char::from(b'a' + (index * index % 25) as u8)).collect();
    let message = format!("the token {token} is not known here");
    let builder = || otlp::builder().header("authorization", format!("Bearer {token}"));
    let server = Scripted::saying(answer("401 Unauthorized", &[("content-type", "text/plain")], &message));
    let http = export(builder(), &server.endpoint(), Protocol::HttpProtobuf).unwrap_err();
    assert!(server.requests()[0].contains(&token), "it was sent");
    let receiver = Receiver::start();
    let message: &'static str = message.leak();
    receiver.always(Answer::Refuse { http: 401, grpc: tonic::Code::Unauthenticated, after: None, message });
    let grpc = export(builder(), &receiver.endpoint(), Protocol::Grpc).unwrap_err();
    for error in [http, grpc] {
        assert!(error.contains("the token [hidden] is not known here"), "{error}");
        assert!(!shows(&error, &token), "{error}");
    }
}

#[test]
fn no_secret_is_shown_however_it_is_echoed() {
    let secret = "[!-~]{8,60}";
    let strategy = (secret, secret, 0_usize..14, 0_usize..14, "[ -~]{0,40}");
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let case = |(header, token, first, second, around): (String, String, usize, usize, String)| {
        let echo = format!("{around} {} {around} {}", forms(&header)[first], forms(&token)[second]);
        let redirection =
            answer("308 Permanent Redirect", &[("location", &echo.replace(['\r', '\n'], ""))], "");
        let refusal = answer("401 Unauthorized", &[], &echo);
        for response in [refusal, redirection] {
            let server = Scripted::saying(response);
            let builder = otlp::builder().header("x-api-key", header.clone());
            let token = token.clone();
            let dynamic = token.clone();
            let builder = builder.header_fn("authorization", move || format!("Bearer {dynamic}"));
            let error = export(builder, &server.endpoint(), Protocol::HttpProtobuf).unwrap_err();
            prop_assert!(!shows(&error, &header), "{} in {}", header, error);
            prop_assert!(!shows(&error, &token), "{} in {}", token, error);
        }
        Ok(())
    };
    runner.run(&strategy, case).unwrap();
}

#[test]
fn the_decoded_password_of_basic_authentication_is_not_shown() {
    let header = format!("Basic {}", base64(b"user:correct-horse-battery"));
    let server = Scripted::saying(answer(
        "401 Unauthorized",
        &[],
        "user 'user' has not the password correct-horse-battery",
    ));
    let error =
        export(otlp::builder().header("authorization", header), &server.endpoint(), Protocol::HttpProtobuf)
            .unwrap_err();
    assert!(error.contains("[hidden]") && !error.contains("correct-horse"), "{error}");
}

#[test]
fn secrets_of_the_url_are_not_shown_when_they_are_echoed() {
    for form in 0..3 {
        let token = "abcdefgh12345678ABCDEFGH";
        let server =
            Scripted::saying(answer("404 Not Found", &[], format!("no route {}", forms(token)[form])));
        let error = export_http(&format!("{}/in/{token}", server.endpoint())).unwrap_err();
        assert!(error.contains("/in/[hidden]/v1/metrics answered"), "{error}");
        assert!(!shows(&error, token), "{error}");
    }
}
