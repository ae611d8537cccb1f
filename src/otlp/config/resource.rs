//! The resource: the attributes that all metrics of the process have in common.

use std::{env, process};

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceDetector, TelemetryResourceDetector};
use uuid::Uuid;

use crate::otlp::config::env::{Env, pairs};
use crate::otlp::config::options::Options;
use crate::util::mutex::Mutex;

/// Detected attributes, then the variables, then the builder's; later ones win. The command line is left out on
/// purpose, since command lines contain passwords.
pub(crate) fn resource(options: &Options, env: &Env<'_>) -> Resource {
    let executable = executable_name();
    let mut attributes = vec![
        KeyValue::new("service.name", format!("unknown_service:{executable}")),
        KeyValue::new("service.instance.id", instance_id().to_string()),
        KeyValue::new("process.pid", i64::from(process::id())),
        KeyValue::new("process.executable.name", executable),
    ];
    attributes.extend(attributes_of_variable(env));
    if let Some(name) = env.parse("OTEL_SERVICE_NAME", |name| Ok(name.to_owned())) {
        attributes.push(KeyValue::new("service.name", name));
    }
    attributes.extend(options.resource.iter().cloned());
    let telemetry = TelemetryResourceDetector.detect();
    let sdk = telemetry.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty().with_attributes(sdk.chain(attributes)).build()
}

/// Without malformed entries, which one warning names, and without empty values, which count as not set.
fn attributes_of_variable(env: &Env<'_>) -> Vec<KeyValue> {
    const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let list = env.parse(NAME, |list| Ok(list.to_owned())).unwrap_or_default();
    let mut attributes = Vec::new();
    let mut problems = Vec::new();
    for (number, pair) in pairs(&list) {
        match pair {
            Ok((_, value)) if value.is_empty() => {}
            Ok((key, value)) => attributes.push(KeyValue::new(key, value)),
            Err(problem) => problems.push(format!("entry {number} {problem}")),
        }
    }
    if !problems.is_empty() {
        env.warn(format!("{NAME}: left out: {}", problems.join("; ")));
    }
    attributes
}

fn executable_name() -> String {
    let path = env::current_exe().ok();
    let name = path.as_deref().and_then(|path| path.file_name());
    name.map_or_else(|| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// A random UUID for the life of the process. Two instances of a service, and two runs of one, are different series.
/// A fork is another process, hence gets another one.
fn instance_id() -> Uuid {
    static ID: Mutex<Option<(u32, Uuid)>> = Mutex::new(None);
    let process = process::id();
    let mut id = ID.lock();
    match *id {
        Some((of, id)) if of == process => id,
        _ => id.insert((process, Uuid::new_v4())).1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::config::env::{warnings, with};

    fn get(resource: &Resource, key: &'static str) -> Option<String> {
        resource.get(&key.into()).map(|value| value.to_string())
    }

    fn resource(set: &[(&str, &str)], options: &Options) -> (Resource, Vec<String>) {
        with(set, |env| (super::resource(options, env), warnings(env)))
    }

    #[test]
    fn without_variables_it_has_process_and_sdk_but_no_command_line() {
        let (resource, warnings) = resource(&[], &Options::default());
        assert_eq!(warnings, [""; 0]);
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
        let id = || get(&resource(&[], &Options::default()).0, "service.instance.id").unwrap();
        assert_eq!(id(), id());
        assert_eq!(Uuid::parse_str(&id()).unwrap().get_version_num(), 4);
    }

    #[test]
    fn the_service_name_goes_before_the_attributes_and_code_before_both() {
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,service.instance.id=7,team=x%2Cy%20z");
        let name = ("OTEL_SERVICE_NAME", "b");
        let none = Options::default();
        let service = |set: &[_], options: &_| get(&resource(set, options).0, "service.name").unwrap();
        assert_eq!(service(&[attributes], &none), "a");
        assert_eq!(service(&[attributes, name], &none), "b");
        let options = Options { resource: vec![KeyValue::new("service.name", "c")], ..Options::default() };
        assert_eq!(service(&[attributes, name], &options), "c");
        let (resource, _) = resource(&[attributes], &none);
        assert_eq!(get(&resource, "service.instance.id").as_deref(), Some("7"));
        assert_eq!(get(&resource, "team").as_deref(), Some("x,y z"));
    }

    #[test]
    fn malformed_entries_are_left_out_with_one_warning_and_empty_ones_are_not_set() {
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=,foo=bar,spam,x=%ff");
        let (resource, warnings) = resource(&[attributes], &Options::default());
        assert_eq!(get(&resource, "foo").as_deref(), Some("bar"));
        assert!(get(&resource, "service.name").unwrap().starts_with("unknown_service:"));
        assert_eq!(get(&resource, "spam"), None);
        let expected = "OTEL_RESOURCE_ATTRIBUTES: left out: entry 3 is not of the form key=value; write a comma inside a \
                        value as %2C; entry 4 is not UTF-8 after percent-decoding";
        assert_eq!(warnings, [expected]);
    }
}
