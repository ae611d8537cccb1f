//! The resource: the attributes that all metrics of the process have in common.

use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, process};

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceDetector, TelemetryResourceDetector};
use uuid::{Builder, Uuid};

use crate::otlp::config::env::{Env, pairs};
use crate::otlp::config::options::Options;

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
    static PROGRAM: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
    static PROCESS: AtomicU64 = AtomicU64::new(0);
    let [high, low] = [&PROGRAM[0], &PROGRAM[1]].map(drawn_once);
    let low = low & !u64::from(u32::MAX) | u64::from(drawn_for(process::id(), &PROCESS));
    Builder::from_random_bytes(Uuid::from_u64_pair(high, low).into_bytes()).into_uuid()
}

/// A random number, the same one for every call. Without a lock, since another thread may hold it while this process
/// forks, and then the fork waits for it without end.
fn drawn_once(number: &AtomicU64) -> u64 {
    let drawn = random() | 1;
    match number.compare_exchange(0, drawn, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => drawn,
        Err(before) => before,
    }
}

/// A random number for a process, which is kept beside the number of the process.
fn drawn_for(process: u32, kept: &AtomicU64) -> u32 {
    let mut before = kept.load(Ordering::Relaxed);
    let drawn = u64::from(process) << 32 | random() >> 32;
    // A process of the same number as the one before it, which is a fork of that one's parent, draws anew.
    while before >> 32 != u64::from(process) {
        match kept.compare_exchange(before, drawn, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => before = drawn,
            Err(other) => before = other,
        }
    }
    (before & u64::from(u32::MAX)) as u32
}

fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1
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
    fn a_process_keeps_its_number_and_another_one_draws_anew() {
        let kept = AtomicU64::new(0);
        let first = drawn_for(7, &kept);
        assert_eq!(drawn_for(7, &kept), first);
        assert_ne!(drawn_for(8, &kept), first);
        assert_ne!(drawn_for(7, &kept), first, "the number of a process that has ended is given again");
        let once = AtomicU64::new(0);
        assert_eq!(drawn_once(&once), drawn_once(&once));
    }

    /// Other threads ask for the identity at the moment of each fork.
    #[test]
    #[cfg(unix)]
    #[allow(unsafe_code, reason = "there is no other way to fork")]
    fn a_fork_gets_its_identity_whatever_other_threads_were_doing() {
        use std::io::Read;
        use std::os::fd::AsRawFd;
        use std::sync::atomic::AtomicBool;

        let stop = AtomicBool::new(false);
        let own = instance_id();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(instance_id(), own);
                    }
                });
            }
            let mut ids = std::collections::HashSet::from([own]);
            for _ in 0..50 {
                let (mut ours, theirs) = std::io::pipe().unwrap();
                // SAFETY: the fork only calls functions that take no lock, and ends without running destructors. The
                // alarm ends it if it waits for one anyway. The buffer is valid for reads of its length.
                let fork = unsafe {
                    match libc::fork() {
                        0 => {
                            libc::alarm(20);
                            let id = instance_id().into_bytes();
                            let written = libc::write(theirs.as_raw_fd(), id.as_ptr().cast(), id.len());
                            libc::_exit(i32::from(written != 16));
                        }
                        fork => fork,
                    }
                };
                drop(theirs);
                let mut id = [0; 16];
                let read = ours.read_exact(&mut id);
                let mut status = 0;
                // SAFETY: it is a child of this process, and the status can be written to.
                unsafe { libc::waitpid(fork, &raw mut status, 0) };
                stop.store(status != 0, Ordering::Relaxed);
                assert_eq!(status, 0, "the fork waits for a lock");
                read.unwrap();
                assert!(ids.insert(Uuid::from_bytes(id)), "two processes have one identity");
            }
            stop.store(true, Ordering::Relaxed);
        });
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
