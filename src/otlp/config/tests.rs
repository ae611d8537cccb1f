//! Settings from variables and from calls.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env::VarError;
use std::time::Duration;

use opentelemetry_sdk::metrics::Temporality;

use super::options::{Options, Protocol};
use super::settings::*;
use crate::otlp::config::env::{Env, warnings, with};

fn settings(set: &[(&str, &str)]) -> (Settings, Vec<String>) {
    with(set, |env| (Settings::new(&Options::default(), env).unwrap(), warnings(env)))
}

fn target(set: &[(&str, &str)]) -> (Target, Vec<String>) {
    let (settings, warnings) = settings(set);
    let Output::Otlp(target) = settings.output else { panic!("{:?}", settings.output) };
    (*target, warnings)
}

#[test]
fn the_defaults_are_those_of_the_specification() {
    let (settings, warnings) = settings(&[]);
    assert!(matches!(settings.output, Output::Otlp(_)));
    let seconds = |seconds| Duration::from_secs(seconds);
    let expected = Times { interval: seconds(60), timeout: seconds(10), shutdown_timeout: seconds(5) };
    assert_eq!(settings.times, expected);
    assert_eq!(settings.temporality, Temporality::Cumulative);
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn the_exporter_is_the_first_known_one_with_a_warning_for_others() {
    let output = |value| {
        let (settings, warnings) = settings(&[("OTEL_METRICS_EXPORTER", value)]);
        (settings.output, warnings)
    };
    assert!(matches!(output("otlp"), (Output::Otlp(_), warnings) if warnings.is_empty()));
    assert!(matches!(output("Console"), (Output::Console, warnings) if warnings.is_empty()));
    assert!(matches!(output("none"), (Output::Nothing, warnings) if warnings.is_empty()));
    for (value, used) in
        [("prometheus", "otlp"), ("otlp,prometheus", "otlp"), ("prometheus, console", "console")]
    {
        let (output, warnings) = output(value);
        assert!(matches!((output, used), (Output::Otlp(_), "otlp") | (Output::Console, "console")));
        assert_eq!(warnings.len(), 1, "{value}");
        assert!(
            warnings[0].ends_with(&format!("it must be one of: otlp, console, none; {used} is used")),
            "{warnings:?}"
        );
    }
}

#[test]
fn only_true_disables_and_then_nothing_else_is_read() {
    let nonsense = ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense");
    for value in ["true", "True"] {
        let (settings, warnings) = settings(&[("OTEL_SDK_DISABLED", value), nonsense]);
        assert!(matches!(settings.output, Output::Nothing));
        assert_eq!(warnings, [""; 0]);
    }
    assert!(matches!(settings(&[("OTEL_METRICS_EXPORTER", "none"), nonsense]).0.output, Output::Nothing));
    let (_, warnings) = target(&[("OTEL_SDK_DISABLED", "1")]);
    assert_eq!(warnings, ["OTEL_SDK_DISABLED=1: it must be one of: true, false"]);
    assert_eq!(target(&[("OTEL_SDK_DISABLED", "false")]).1, [""; 0]);
}

#[test]
fn interval_and_timeouts_are_milliseconds_and_a_timeout_of_zero_is_no_limit() {
    let exporter = ("OTEL_EXPORTER_OTLP_TIMEOUT", "7000");
    let metrics = ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "6000");
    let reader = ("OTEL_METRIC_EXPORT_TIMEOUT", "5000");
    let timeout = |set: &[_]| settings(set).0.times.timeout.as_millis();
    assert_eq!(timeout(&[exporter]), 7000);
    assert_eq!(timeout(&[exporter, metrics]), 6000);
    assert_eq!(timeout(&[exporter, metrics, reader]), 5000, "the shorter one counts");
    assert_eq!(timeout(&[("OTEL_METRIC_EXPORT_TIMEOUT", "20000")]), 10_000, "the shorter one counts");
    assert_eq!(timeout(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "0")]), MAX_TIME.as_millis());
    assert_eq!(timeout(&[("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "0"), reader]), 5000);
    assert_eq!(timeout(&[("OTEL_METRIC_EXPORT_TIMEOUT", "0")]), 10_000);
    assert_eq!(settings(&[("OTEL_METRIC_EXPORT_INTERVAL", "250")]).0.times.interval.as_millis(), 250);
    let short = settings(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "300")]).0.times.shutdown_timeout;
    assert_eq!(short.as_millis(), 300, "a shutdown is an export too");
}

#[test]
fn a_malformed_number_gives_one_warning_and_the_default() {
    for (name, zero) in [
        ("OTEL_METRIC_EXPORT_INTERVAL", true),
        ("OTEL_METRIC_EXPORT_TIMEOUT", false),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", false),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", false),
    ] {
        for value in
            ["-1", "10s", "1.5", "+5", "99999999999999999999", "\"5\""].into_iter().chain(zero.then_some("0"))
        {
            let (settings, warnings) = settings(&[(name, value)]);
            assert_eq!(settings.times, self::settings(&[]).0.times, "{name}={value}");
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].starts_with(&format!("{name}=")), "{warnings:?}");
        }
    }
}

#[test]
fn an_unknown_word_gives_one_warning_and_the_default() {
    let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let temporality = |value| settings(&[(name, value)]).0.temporality;
    assert_eq!(temporality("CUMULATIVE"), Temporality::Cumulative);
    assert_eq!(temporality("delta"), Temporality::Delta);
    assert_eq!(temporality("LowMemory"), Temporality::LowMemory);
    let (settings, warnings) = settings(&[(name, "low")]);
    assert_eq!(settings.temporality, Temporality::Cumulative);
    assert_eq!(warnings, [format!("{name}=low: it must be one of: cumulative, delta, lowmemory")]);
}

#[test]
fn a_protocol_that_is_unknown_or_not_compiled_is_ignored_with_a_warning() {
    let default = if cfg!(feature = "otlp-http") { Protocol::HttpProtobuf } else { Protocol::Grpc };
    assert_eq!(target(&[]).0.protocol, default);
    for (value, protocol, is_compiled) in [
        ("grpc", Protocol::Grpc, cfg!(feature = "otlp-grpc")),
        ("HTTP/protobuf", Protocol::HttpProtobuf, cfg!(feature = "otlp-http")),
        ("http/json", Protocol::HttpJson, cfg!(feature = "otlp-http-json")),
    ] {
        let (target, warnings) = target(&[("OTEL_EXPORTER_OTLP_PROTOCOL", value)]);
        assert_eq!(target.protocol, if is_compiled { protocol } else { default });
        assert_eq!(warnings.len(), usize::from(!is_compiled), "{warnings:?}");
    }
    let set = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "htp")];
    let warnings = target(&set).1;
    assert_eq!(
        warnings[0],
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=htp: it must be one of: grpc, http/protobuf, http/json"
    );
    if cfg!(feature = "otlp-grpc") {
        assert_eq!(target(&set).0.protocol, Protocol::Grpc, "the general one counts then");
    }
}

#[test]
fn a_compression_that_is_not_compiled_is_left_out_with_a_warning() {
    let compression = |value| {
        let (target, warnings) = target(&[("OTEL_EXPORTER_OTLP_COMPRESSION", value)]);
        (target.compression, warnings)
    };
    assert_eq!(compression("none"), (Compression::None, vec![]));
    for (value, meant, compiled) in [
        ("gzip", Compression::Gzip, cfg!(feature = "otlp-gzip")),
        ("zstd", Compression::Zstd, cfg!(feature = "otlp-zstd")),
    ] {
        let warning =
            format!("OTEL_EXPORTER_OTLP_COMPRESSION={value}: it needs the Cargo feature `otlp-{value}`");
        let expected = if compiled { (meant, vec![]) } else { (Compression::None, vec![warning]) };
        assert_eq!(compression(value), expected);
    }
    assert_eq!(compression("lz4").0, Compression::None);
}

#[test]
fn code_goes_before_the_environment() {
    let set = [
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "nonsense"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "1"),
    ];
    let second = Duration::from_secs(1);
    let options = |time| Options {
        endpoint: Some("http://h:1".into()),
        interval: Some(time),
        timeout: Some(time),
        shutdown_timeout: Some(time),
        ..Options::default()
    };
    let settings = with(&set, |env| Settings::new(&options(second), env)).unwrap();
    let Output::Otlp(target) = settings.output else { panic!("{:?}", settings.output) };
    assert_eq!(target.endpoint.url.authority().unwrap(), "h:1");
    assert_eq!(settings.times, Times { interval: second, timeout: second, shutdown_timeout: second });
    let times = with(&[], |env| Settings::new(&options(Duration::MAX), env)).unwrap().times;
    assert_eq!(times, Times { interval: MAX_TIME, timeout: MAX_TIME, shutdown_timeout: MAX_TIME });
    let error = with(&[], |env| Settings::new(&options(Duration::ZERO), env)).unwrap_err();
    assert_eq!(error.to_string(), "interval=0: it must be greater than 0");
}

#[test]
fn debug_shows_no_secret() {
    let (mut target, _) = target(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=s3cret,s3cret=1"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://h:1/s3cret-s3cret-s3cret-s3cret?token=s3cret"),
        ("HTTP_PROXY", "http://user:s3cret@p:1"),
    ]);
    target.headers.now(&mut target.secrets).unwrap();
    let text = format!("{target:?} {:?}", target.secrets);
    assert!(!text.contains("s3cret"), "{text}");
    assert!(text.contains("http://h:1/[hidden]?[hidden]"), "{text}");
}

/// The variables that are read, in the usual case and where gRPC has an endpoint without a scheme.
fn variables_read() -> BTreeSet<String> {
    let names = RefCell::new(BTreeSet::new());
    for set in [
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://h")][..],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h")],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "h"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
        &[
            ("HTTP_PROXY", "http://p"),
            ("HTTPS_PROXY", "http://p"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h"),
        ],
    ] {
        let read = |name: &str| {
            names.borrow_mut().insert(name.to_owned());
            let value = set.iter().find(|(key, _)| *key == name);
            value.map(|(_, value)| (*value).to_owned()).ok_or(VarError::NotPresent)
        };
        Settings::new(&Options::default(), &Env::new(&read)).unwrap();
    }
    names.into_inner()
}

#[test]
#[cfg(all(feature = "otlp-tls", feature = "otlp-grpc"))]
fn the_table_of_variables_names_every_variable_that_is_read_and_no_other() {
    let is_name = |word: &&str| {
        word.contains('_') && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    let rows = include_str!("../mod.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let first_columns: Vec<_> = rows.filter_map(|row| row.split('|').next()).collect();
    let mut documented = BTreeSet::new();
    for name in first_columns.iter().flat_map(|column| column.split('`').filter(is_name)) {
        documented.insert(name.to_owned());
        // As the text above the table says.
        if let Some(setting) =
            name.strip_prefix("OTEL_EXPORTER_OTLP_").filter(|setting| !setting.starts_with("METRICS_"))
        {
            documented.insert(format!("OTEL_EXPORTER_OTLP_METRICS_{setting}"));
        }
        if name.ends_with("_PROXY") {
            documented.insert(name.to_ascii_lowercase());
        }
    }
    assert!(documented.len() > 20, "{documented:?}");
    // Shows that a web server calls the program (CGI). It is not a setting of this library.
    let mut read = variables_read();
    assert!(read.remove("REQUEST_METHOD"));
    assert_eq!(read, documented);
}
