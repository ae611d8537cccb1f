//! Puts random secrets into every setting, and lets endpoints echo them in every form. No output shows them:
//! no error, no line of the log at any level, no `Debug`.

use std::collections::BTreeSet;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp::{self, Builder, Protocol};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::child::{child, results};
use support::log;
use support::receiver::{Answer, Receiver};
use support::scripted::{Scripted, answer};

#[path = "support/certificates.rs"]
mod certificates;
use certificates::Certificates;

/// Exports once to this endpoint. Returns everything that was printed, and the error.
fn export(builder: Builder, endpoint: &str, protocol: Protocol) -> (String, Result<(), otlp::Error>) {
    let builder = builder.endpoint(endpoint).protocol(protocol).interval(Duration::from_secs(3600));
    let mut printed = format!("{builder:?}");
    // Only the first result is of interest.
    let builder = builder.timeout(Duration::from_secs(20)).shutdown_timeout(Duration::from_millis(1));
    let telemetry = builder.build().unwrap();
    telemetry.provider().meter("app").u64_counter("orders").build().add(1, &[]);
    let result = telemetry.force_flush();
    printed += &format!("\n{telemetry:?}\n{result:?}");
    if let Err(error) = &result {
        printed += &format!("\n{error}\n{error:#?}");
    }
    (printed, result)
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, max_shrink_iters: 30, failure_persistence: None, ..Config::default() })
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
        format!("{secret:?}"),
        secret.escape_unicode().to_string(),
        secret.bytes().map(|byte| format!("\\x{byte:02X}")).collect(),
        secret.to_ascii_lowercase(),
        percent(&base64(secret.as_bytes())),
        base64(percent(secret).as_bytes()),
        base64(base64(secret.as_bytes()).as_bytes()),
        serde_json::to_string(&base64(secret.as_bytes()).replace('/', "\\/")).unwrap(),
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

/// Returns true if the text shows eight characters in a row of one of the forms of the secret.
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
    let http = export(builder(), &server.endpoint(), Protocol::HttpProtobuf).1.unwrap_err();
    assert!(server.requests()[0].contains(&token), "it was sent");
    let receiver = Receiver::start();
    let message: &'static str = message.leak();
    receiver.always(Answer::Refuse { http: 401, grpc: tonic::Code::Unauthenticated, after: None, message });
    let grpc = export(builder(), &receiver.endpoint(), Protocol::Grpc).1.unwrap_err();
    for error in [http, grpc].map(|error| error.to_string()) {
        assert!(error.contains("the token [hidden] is not known here"), "{error}");
        assert!(!shows(&error, &token), "{error}");
    }
}

/// The text around an echo. It is long enough for either limit of an excerpt to cut the echo.
fn around() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ -~]{0,40}".boxed(),
        1 => (270_usize..310).prop_map(|length| "x".repeat(length)).boxed(),
        1 => (8100_usize..8200).prop_map(|length| " ".repeat(length)).boxed(),
    ]
}

/// One test, since the log belongs to the process.
#[test]
fn no_secret_is_shown_however_it_is_echoed() {
    log::listen();
    let secret = "[!-~]{8,60}";
    let count = forms("").len();
    let strategy = (secret, secret, 0..count, 0..count, around(), any::<bool>());
    let case =
        |(header, token, first, second, around, is_grpc): (String, String, usize, usize, String, bool)| {
            let echo = format!("{around} {} {around} {}", forms(&header)[first], forms(&token)[second]);
            let builder = || {
                let token = token.clone();
                let builder = otlp::builder().header("x-api-key", header.clone());
                builder.header_fn("authorization", move || format!("Bearer {token}"))
            };
            let mut printed = Vec::new();
            if is_grpc {
                let message: &'static str = echo.leak();
                let receiver = Receiver::start();
                receiver.answer([
                    Answer::Reject { points: 1, message },
                    Answer::Reject { points: 0, message },
                    Answer::Refuse { http: 401, grpc: tonic::Code::Unauthenticated, after: None, message },
                ]);
                for _ in 0..3 {
                    printed.push(export(builder(), &receiver.endpoint(), Protocol::Grpc).0);
                }
            } else {
                let line = echo.replace(['\r', '\n'], "");
                let json = |points: &str| {
                    let part = serde_json::json!({"rejectedDataPoints": points, "errorMessage": echo});
                    serde_json::json!({ "partialSuccess": part }).to_string()
                };
                let json_type = [("content-type", "Application/JSON; charset=utf-8")];
                let cut = answer("403 Forbidden", &[], &echo);
                for response in [
                    answer("401 Unauthorized", &[("www-authenticate", &line)], &echo),
                    answer("403 Forbidden", &json_type, serde_json::json!({ "message": echo }).to_string()),
                    answer(
                        "404 Not Found",
                        &[("content-type", "text/html")],
                        format!("<title>{echo}</title>"),
                    ),
                    answer("308 Permanent Redirect", &[("location", &line)], ""),
                    answer("307 Temporary Redirect", &[("location", &format!("https://h/{line}"))], ""),
                    answer("200 OK", &json_type, json("40")),
                    answer("200 OK", &json_type, json("0")),
                    // The connection breaks in the middle of the answer.
                    cut[..cut.len() - 1].to_vec(),
                ] {
                    let server = Scripted::saying(response);
                    printed.push(export(builder(), &server.endpoint(), Protocol::HttpProtobuf).0);
                }
            }
            printed.extend(log::take());
            for text in printed {
                prop_assert!(!shows(&text, &header), "{} in {}", header, text);
                prop_assert!(!shows(&text, &token), "{} in {}", token, text);
                prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{:?}", text);
            }
            Ok(())
        };
    runner(24).run(&strategy, case).unwrap();
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
            .1
            .unwrap_err()
            .to_string();
    assert!(error.contains("[hidden]") && !error.contains("correct-horse"), "{error}");
}

#[test]
fn secrets_of_the_url_are_not_shown_when_they_are_echoed() {
    for form in 0..3 {
        let token = "abcdefgh12345678ABCDEFGH";
        let server =
            Scripted::saying(answer("404 Not Found", &[], format!("no route {}", forms(token)[form])));
        let endpoint = format!("{}/in/{token}", server.endpoint());
        let (_, result) = export(otlp::builder(), &endpoint, Protocol::HttpProtobuf);
        let error = result.unwrap_err().to_string();
        assert!(error.contains("/in/[hidden]/v1/metrics answered"), "{error}");
        assert!(!shows(&error, token), "{error}");
    }
}

/// Exports once with these variables. Returns all that was printed: the error, the log at every level, and `Debug`.
fn printed(set: &[(&str, &str)]) -> String {
    results(child("child_prints").envs(set.iter().copied())).join("\n")
}

#[test]
#[ignore = "run by other tests, in a child process"]
fn child_prints() {
    log::listen_to_all();
    let export = || {
        let builder = otlp::builder();
        println!("RESULT {builder:?}");
        let telemetry = builder.build()?;
        telemetry.provider().meter("app").u64_counter("orders").build().add(3, &[]);
        let result = telemetry.force_flush();
        println!("RESULT {telemetry:?} {result:?}");
        result
    };
    match export() {
        Ok(()) => println!("RESULT delivered"),
        Err(error) => println!("RESULT {error} {error:?}"),
    }
    for line in log::take() {
        println!("RESULT {}", line.replace('\n', " "));
    }
}

#[test]
fn no_level_of_the_log_shows_a_header() {
    let files = Certificates::new();
    let receiver = Receiver::start();
    let secret = "c0rrect-h0rse-battery-staple";
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        for endpoint in [receiver.endpoint(), receiver.endpoint().replace("http:", "https:")] {
            let printed = printed(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", &files.path("authority.pem")),
                (
                    "OTEL_EXPORTER_OTLP_HEADERS",
                    &format!("x-api-key={secret},authorization=Bearer%20{secret}"),
                ),
            ]);
            // TLS is refused there.
            let is_taken = endpoint.starts_with("http:");
            assert_eq!(printed.contains("\ndelivered"), is_taken, "{printed}");
            assert!(!shows(&printed, secret), "{printed}");
        }
    }
    assert_eq!(receiver.last().unwrap().headers["x-api-key"], secret, "it was sent");
}

/// All variables of the table in the documentation of the module.
fn variables() -> BTreeSet<String> {
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../src/otlp/mod.rs")).unwrap();
    let rows = source.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let is_name = |word: &&str| word.len() > 3 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let names: BTreeSet<_> = rows
        .filter_map(|row| row.split('|').next())
        .flat_map(|column| column.split('`').filter(is_name).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(names.len() > 15, "{names:?}");
    names
}

#[test]
fn a_secret_in_any_variable_is_never_printed() {
    let names: Vec<_> = variables().into_iter().collect();
    let shape = prop_oneof![
        "[a-zA-Z0-9]{32}",
        "[a-zA-Z0-9+/]{40}==",
        "/[a-zA-Z0-9+/]{40}==",
        "Bearer [a-zA-Z0-9_.-]{30}",
        "eyJ[a-zA-Z0-9_-]{20}\\.eyJ[a-zA-Z0-9_-]{10,30}\\.[a-zA-Z0-9_-]{43}",
        "[a-z]{4}_[a-zA-Z0-9]{12}\\.[a-zA-Z0-9]{16}",
        "[!-~]{24,50}",
    ];
    let wrap = prop_oneof![
        Just(("", "")),
        Just(("x-api-key=", "")),
        Just(("http://user:", "@127.0.0.1:1")),
        Just(("http://127.0.0.1:1/", "/in")),
        Just(("http://127.0.0.1:1?token=", "")),
        Just(("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----")),
        Just(("\"", "\"")),
        Just(("'", "'")),
    ];
    let strategy = (prop::sample::select(names), shape, wrap, any::<bool>());
    let case = |(name, secret, (before, after), https): (String, String, (&str, &str), bool)| {
        let value = format!("{before}{secret}{after}");
        let endpoint = if https { "https://0.0.0.0:1" } else { "http://0.0.0.0:1" };
        let mut set = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
            // The shorter one counts.
            ("OTEL_METRIC_EXPORT_TIMEOUT", "500"),
        ];
        set.retain(|(other, _)| *other != name);
        set.push((&name, &value));
        // The name of the service is no secret, and is exported.
        prop_assume!(name != "OTEL_SERVICE_NAME" && name != "OTEL_RESOURCE_ATTRIBUTES");
        // A segment of a path has no slash.
        prop_assume!(!before.ends_with(":1/") || secret.chars().all(|c| c.is_ascii_alphanumeric()));
        let shown = printed(&set);
        let secret = secret.trim_start_matches("Bearer ");
        let pieces = secret.as_bytes().windows(8).map(String::from_utf8_lossy);
        for piece in pieces {
            prop_assert!(!shown.contains(&*piece), "{}={} shows {}: {}", name, value, piece, shown);
        }
        Ok(())
    };
    runner(40).run(&strategy, case).unwrap();
}
