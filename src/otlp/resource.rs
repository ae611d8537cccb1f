//! Who reports: the attributes that all metrics of the process have in common.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::{env, process};

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceDetector, TelemetryResourceDetector};

use super::error::Error;
use super::settings::Options;
use super::variables::Variables;

/// Later ones win: what is found out, the variables, the builder. The command line is left out on purpose, for
/// there are passwords in command lines.
pub(super) fn resource(options: &Options, variables: &Variables<'_>) -> Result<Resource, Error> {
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
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
