//! Who reports: the attributes that all metrics of the process have in common.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::{env, process};

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceDetector, TelemetryResourceDetector};

use crate::otlp::config::env::Variables;
use crate::otlp::config::settings::Options;
use crate::otlp::error::Error;

/// Later ones win: what is found out, the variables, the builder. The command line is left out on purpose, for
/// there are passwords in command lines.
pub(in crate::otlp) fn resource(options: &Options, variables: &Variables<'_>) -> Result<Resource, Error> {
    let executable = executable_name();
    let mut attributes = vec![
        KeyValue::new("service.name", format!("unknown_service:{executable}")),
        KeyValue::new("service.instance.id", instance_id()),
        KeyValue::new("process.pid", i64::from(process::id())),
        KeyValue::new("process.executable.name", executable),
    ];
    if let Some(variable) = variables.get("OTEL_RESOURCE_ATTRIBUTES")? {
        let pairs = variable.pairs().map_err(|problem| variable.invalid(problem))?;
        attributes.extend(pairs.into_iter().map(|(key, value)| KeyValue::new(key, value)));
    }
    if let Some(variable) = variables.get("OTEL_SERVICE_NAME")? {
        attributes.push(KeyValue::new("service.name", variable.value));
    }
    attributes.extend(options.resource.iter().cloned());
    let telemetry = TelemetryResourceDetector.detect();
    let sdk = telemetry.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Ok(Resource::builder_empty().with_attributes(sdk.chain(attributes)).build())
}

fn executable_name() -> String {
    let path = env::current_exe().ok();
    let name = path.as_deref().and_then(|path| path.file_name());
    name.map_or_else(|| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// A random UUID that stays the same for the life of the process: two instances of a service, and two runs of one,
/// are different series.
fn instance_id() -> String {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let bits = u128::from(random()) << 64 | u128::from(random());
        // Version 4, variant 1.
        let bits = bits & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
        let hex = format!("{bits:032x}");
        let (a, rest) = hex.split_at(8);
        let (b, rest) = rest.split_at(4);
        let (c, rest) = rest.split_at(4);
        let (d, e) = rest.split_at(4);
        [a, b, c, d, e].join("-")
    })
    .clone()
}

/// The keys of the standard library's hash maps come from the operating system: random enough for what has to be
/// unique and is no secret.
pub(in crate::otlp) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::config::env::with;

    fn resource(set: &[(&str, &str)], options: &Options) -> Result<Resource, String> {
        with(set, |variables| super::resource(options, variables)).map_err(|error| error.to_string())
    }

    fn get(resource: &Resource, key: &'static str) -> Option<String> {
        resource.get(&key.into()).map(|value| value.to_string())
    }

    #[test]
    fn without_variables_it_tells_process_and_sdk_but_no_command_line() {
        let resource = resource(&[], &Options::default()).unwrap();
        let mut keys: Vec<_> = resource.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "process.executable.name",
                "process.pid",
                "service.instance.id",
                "service.name",
                "telemetry.sdk.language",
                "telemetry.sdk.name",
                "telemetry.sdk.version"
            ]
        );
        let executable = get(&resource, "process.executable.name").unwrap();
        assert!(executable.starts_with("opentelemetry_instrumentation_runtime-"), "{executable}");
        assert_eq!(get(&resource, "service.name"), Some(format!("unknown_service:{executable}")));
        assert_eq!(get(&resource, "process.pid"), Some(process::id().to_string()));
    }

    #[test]
    fn the_instance_is_a_random_uuid_that_stays_the_same() {
        let id = || get(&resource(&[], &Options::default()).unwrap(), "service.instance.id").unwrap();
        assert_eq!(id(), id());
        let id = id();
        let parts: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert!(id.chars().all(|digit| digit == '-' || digit.is_ascii_hexdigit()));
        assert_eq!(id.chars().nth(14), Some('4'), "{id} is not of version 4");
        assert!("89ab".contains(id.chars().nth(19).unwrap()), "{id} is not of variant 1");
        assert_ne!(random(), random());
    }

    #[test]
    fn the_service_name_goes_before_the_attributes_and_code_before_both() {
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,service.instance.id=7,team=x%2Cy%20z");
        let name = ("OTEL_SERVICE_NAME", "b");
        let none = Options::default();
        let service = |set: &[_], options: &_| get(&resource(set, options).unwrap(), "service.name").unwrap();
        assert_eq!(service(&[attributes], &none), "a");
        assert_eq!(service(&[attributes, name], &none), "b");
        let options = Options { resource: vec![KeyValue::new("service.name", "c")], ..Options::default() };
        assert_eq!(service(&[attributes, name], &options), "c");
        let resource = resource(&[attributes], &none).unwrap();
        assert_eq!(get(&resource, "service.instance.id").as_deref(), Some("7"));
        assert_eq!(get(&resource, "team").as_deref(), Some("x,y z"));
    }

    #[test]
    fn malformed_attributes_are_an_error() {
        let error =
            resource(&[("OTEL_RESOURCE_ATTRIBUTES", "team=a,shop")], &Options::default()).unwrap_err();
        assert_eq!(error, "OTEL_RESOURCE_ATTRIBUTES=team=a,shop: entry 2 is not of the form key=value");
    }
}
