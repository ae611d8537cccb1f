//! Makes settings of random variables.

use std::env::VarError;

use arbitrary::{Result, Unstructured};

use super::env::Env;
use super::options::Options;
use super::settings::{MAX_TIME, Output, Settings};
use crate::util::fuzz::{edited_text, run};

const TOKEN: &str = "s3cretT0ken4711wxyzQ9aB8cD7eF6gH5iJ4kL3m";

/// Variables, and what stands in them.
const VARIABLES: [(&str, &[&str]); 19] = [
    ("OTEL_SDK_DISABLED", &["false", "true", "1"]),
    ("OTEL_METRICS_EXPORTER", &["otlp", "console", "none", "otlp,prometheus"]),
    ("OTEL_METRIC_EXPORT_INTERVAL", &["60000", "1", "18446744073709551615"]),
    ("OTEL_METRIC_EXPORT_TIMEOUT", &["30000", "0"]),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", &["10000", "0"]),
    ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", &["5000"]),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", &["grpc", "http/protobuf", "http/json"]),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        &["http://h:4318", "https://[::1]:4317/base/", "unix:///run/otel.sock", "h:4317"],
    ),
    (
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        &["http://h:4318/v1/metrics", "https://h/in?tenant=1", "http://127.0.0.1"],
    ),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", &["gzip", "zstd", "none"]),
    ("OTEL_EXPORTER_OTLP_INSECURE", &["true", "false"]),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", &["/etc/ssl/ca.pem", "ca.pem"]),
    ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &["/etc/ssl/client.pem"]),
    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &["/etc/ssl/client.key"]),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", &["cumulative", "delta", "lowmemory"]),
    ("OTEL_RESOURCE_ATTRIBUTES", &["service.name=shop,service.version=1.2%2C3,k=%C3%A9", "a=b,,c=d=e"]),
    ("OTEL_SERVICE_NAME", &["shop", "\u{e9}"]),
    ("NO_PROXY", &["h.org:4318, .h.org,10.0.0.0/8", "*", "[fd00::1]:4318"]),
    ("SSL_CERT_FILE", &["/etc/ssl/cert.pem", ""]),
];

/// Variables with a secret, each with the text before and behind it.
const SECRET: [(&str, &[&str], &[&str]); 4] = [
    ("OTEL_EXPORTER_OTLP_HEADERS", &["a=1,Authorization=Bearer%20", "api-key="], &[",b=2", "==", ""]),
    (
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        &["http://h:4318/v1/metrics?token=", "https://user:"],
        &["", "@h:4318/in"],
    ),
    ("HTTP_PROXY", &["http://user:", "user:"], &["@p:3128", "@p/"]),
    ("HTTPS_PROXY", &["http://user:", "https://"], &["@p:3128", "@"]),
];

/// Returns some variables and whether the secret is where it must not be shown.
fn variables(u: &mut Unstructured<'_>) -> Result<Vec<(&'static str, String)>> {
    let mut set = Vec::new();
    for _ in 0..u.int_in_range(0..=4)? {
        let (name, values) = *u.choose(&VARIABLES)?;
        set.push((name, edited_text(u, values)?));
    }
    if u.arbitrary()? {
        let (name, before, behind) = *u.choose(&SECRET)?;
        let is_any = name == "OTEL_EXPORTER_OTLP_HEADERS";
        // Elsewhere the secret is one by its place: behind a question mark or before an at sign.
        let (before, behind) = match is_any {
            true => (edited_text(u, before)?, edited_text(u, behind)?),
            false => {
                let (before, behind) = (*u.choose(before)?, edited_text(u, behind)?);
                let ends = if before.contains('?') || behind.contains('@') { "" } else { "@h" };
                (before.to_owned(), format!("{behind}{ends}"))
            }
        };
        set.insert(0, (name, format!("{before}{TOKEN}{behind}")));
    }
    Ok(set)
}

#[test]
fn any_variables_make_settings_or_an_error_without_secrets() {
    run(4_000, 16 << 20, |u| {
        let set = variables(u)?;
        let is_unicode = !u.ratio(1, 50)?;
        let read = |name: &str| match set.iter().find(|(key, _)| *key == name) {
            Some((_, value)) if is_unicode => Ok(value.clone()),
            Some((_, value)) => Err(VarError::NotUnicode(value.into())),
            None => Err(VarError::NotPresent),
        };
        let env = Env::new(&read);
        let settings = Settings::new(&Options::default(), &env);
        let mut shown = format!("{settings:?}");
        if let Ok(Settings { output: Output::Otlp(target), times, .. }) = &settings {
            assert!(!times.interval.is_zero() && !times.timeout.is_zero());
            assert!(times.interval.max(times.timeout).max(times.shutdown_timeout) <= MAX_TIME);
            shown +=
                &format!("{} {:?}", target.endpoint.name, target.proxy.as_ref().map(|proxy| proxy.name()));
        }
        if let Err(error) = &settings {
            shown += &error.to_string();
        }
        let warnings = env.into_warnings();
        assert!(warnings.len() <= VARIABLES.len(), "{warnings:?}");
        shown += &warnings.concat();
        for part in 0..=TOKEN.len() - 8 {
            assert!(!shown.contains(&TOKEN[part..part + 8]), "{shown}");
        }
        Ok(settings.is_ok())
    });
}
