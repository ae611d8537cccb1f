//! Profiles arrive over OTLP with the functions and the values that the process has itself.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::alloc::System;
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp::{self, Builder, Protocol, Telemetry};
use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile};
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, Sampled, TaskExt};
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use support::collector::{Collector, Config};
use support::otlp_profile::{at, kind, profiles, rows, sum};
use support::receiver::{Export, Receiver};

#[global_allocator]
static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

const LONG: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const LEAKED: i64 = 64_000_000;
/// Of the samples, in bytes. Looking up names allocates a lot, which should not take long.
const MEAN: u64 = 128 * 1024;

/// One test at a time: profiles belong to the process.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if HeapProfile::running().is_none() {
        HeapProfile::start(MEAN).unwrap();
        // A thread notices it with its next 32 KiB.
        drop(black_box(vec![1_u8; 64 * 1024]));
    }
    turn
}

#[inline(never)]
fn leaking_function() -> Vec<Vec<u8>> {
    (0..LEAKED / 1000).map(|_| black_box(vec![1; 1000])).collect()
}

fn start(builder: Builder, endpoint: &str, protocol: Protocol) -> Telemetry {
    let telemetry = builder.endpoint(endpoint).protocol(protocol).interval(HOUR).build().unwrap();
    telemetry.provider().meter("app").u64_counter("orders").build().add(1, &[]);
    telemetry
}

/// Exports metrics, with which a profile goes, and waits for the profile.
fn flush(telemetry: &Telemetry, receiver: &Receiver) -> Export<ExportProfilesServiceRequest> {
    let before = receiver.profiles().exports().len();
    telemetry.force_flush().unwrap();
    assert!(receiver.profiles().wait_for(before + 1, LONG), "no profile");
    receiver.profiles().last().unwrap()
}

/// The bytes in use that the process itself finds under a function.
fn in_use(function: &str) -> i64 {
    let folded = profile::heap().to_folded();
    let lines = folded.lines().filter(|line| line.contains(function));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap()).sum()
}

#[test]
fn a_leak_arrives_at_the_collector_by_name() {
    let _alone = alone();
    let Some(collector) = Collector::start(&Config { profiles: true, ..Config::default() }) else { return };
    let ports = collector.ports();
    let leaked = leaking_function();
    let endpoints = [
        (Protocol::Grpc, ports.grpc),
        (Protocol::HttpProtobuf, ports.http),
        (Protocol::HttpJson, ports.http),
    ];
    for (before, (protocol, port)) in endpoints.into_iter().enumerate() {
        let resource = [opentelemetry::KeyValue::new("service.name", "leaky-shop")];
        let builder = otlp::builder().resource(resource);
        let telemetry = start(builder, &format!("http://127.0.0.1:{port}"), protocol);
        telemetry.force_flush().unwrap();
        telemetry.force_flush().unwrap();
        // The dictionary of each message has the name once.
        let is_there = |text: &str| {
            let profiles: Vec<_> = text.split("ResourceProfiles #").skip(1).collect();
            text.lines().filter(|line| line.ends_with("otlp_profiles::leaking_function")).count() > before
                && profiles.iter().filter(|profile| profile.contains("service.name: Str(leaky-shop)")).count()
                    > before
        };
        assert!(collector.wait_for(is_there, LONG), "{protocol:?}: {}", collector.printed());
        telemetry.shutdown().unwrap();
    }
    assert!(collector.printed().contains("inuse_space"), "{}", collector.printed());
    drop(leaked);
}

#[test]
fn a_collector_without_profiles_still_gets_metrics() {
    let _alone = alone();
    let Some(collector) = Collector::start(&Config::default()) else { return };
    let ports = collector.ports();
    let mut exports = 0;
    for (protocol, port) in [(Protocol::Grpc, ports.grpc), (Protocol::HttpProtobuf, ports.http)] {
        let telemetry = start(otlp::builder(), &format!("http://127.0.0.1:{port}"), protocol);
        for _ in 0..4 {
            telemetry.force_flush().unwrap();
        }
        telemetry.shutdown().unwrap();
        exports += 5;
        let printed = |text: &str| text.matches("-> Name: orders").count() == exports;
        assert!(collector.wait_for(printed, LONG), "{}", collector.printed());
    }
}

#[test]
fn the_values_are_those_of_the_process_and_changes_add_up() {
    let _alone = alone();
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let receiver = Receiver::start();
        let telemetry = start(otlp::builder(), &receiver.endpoint(), protocol);
        let leaked = leaking_function();
        telemetry.force_flush().unwrap();
        assert_eq!(receiver.profiles().requests(), 0, "the first goes with the second export");
        let total = profile::heap().total();
        let first = flush(&telemetry, &receiver);
        let values = rows(&first.message);
        let own = in_use("leaking_function");
        assert!((own - LEAKED).abs() < LEAKED / 4, "{own}");
        assert_eq!(sum(&values, "inuse_space/bytes", "leaking_function"), own);
        // The exports themselves need some memory.
        let sent = sum(&values, "inuse_space/bytes", "");
        assert!((sent - total).abs() < total / 10, "{sent} of {total}");
        for (kind, least) in
            [("alloc_space/bytes", own), ("alloc_objects/count", 1), ("inuse_objects/count", 1)]
        {
            assert!(sum(&values, kind, "leaking_function") >= least, "{kind}");
        }

        let more = leaking_function();
        let second = rows(&flush(&telemetry, &receiver).message);
        assert_eq!(sum(&second, "inuse_space/bytes", "leaking_function"), in_use("leaking_function") - own);

        drop((leaked, more));
        let third = rows(&flush(&telemetry, &receiver).message);
        let all: Vec<_> = [values, second, third].concat();
        assert_eq!(sum(&all, "inuse_space/bytes", "leaking_function"), 0);
        assert!(sum(&all, "alloc_space/bytes", "leaking_function") > LEAKED);
        telemetry.shutdown().unwrap();
    }
}

#[test]
fn a_profile_has_its_time_and_the_resource_of_the_metrics() {
    let _alone = alone();
    let resource = [opentelemetry::KeyValue::new("team", "payments")];
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let receiver = Receiver::start();
        let start_time = SystemTime::now();
        let builder = otlp::builder().resource(resource.clone()).header("x-api-key", "k");
        let telemetry = start(builder, &receiver.endpoint(), protocol);
        telemetry.force_flush().unwrap();
        let export = flush(&telemetry, &receiver);
        assert_eq!(export.headers["x-api-key"], "k");
        let expected_path = match protocol {
            Protocol::Grpc => "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
            _ => "/v1development/profiles",
        };
        assert_eq!(export.path, expected_path);

        let metrics = receiver.last().unwrap().message.resource_metrics.remove(0);
        let of_profiles = &export.message.resource_profiles[0];
        let sorted = |resource: &Option<opentelemetry_proto::tonic::resource::v1::Resource>| {
            let mut attributes: Vec<_> =
                resource.as_ref().unwrap().attributes.iter().map(|pair| format!("{pair:?}")).collect();
            attributes.sort();
            attributes
        };
        assert_eq!(sorted(&of_profiles.resource), sorted(&metrics.resource));
        assert!(sorted(&metrics.resource).iter().any(|pair| pair.contains("payments")));
        let scope = of_profiles.scope_profiles[0].scope.as_ref().unwrap();
        assert_eq!(scope.name, "opentelemetry-instrumentation-runtime");

        let dictionary = export.message.dictionary.as_ref().unwrap();
        let nanos = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let mut kinds = Vec::new();
        for profile in profiles(&export.message) {
            assert!(profile.time_unix_nano >= nanos(start_time));
            assert!(profile.time_unix_nano + profile.duration_nano <= nanos(SystemTime::now()));
            assert_eq!(profile.profile_id.len(), 16);
            // Another test may have left stalls.
            if kind(dictionary, profile.period_type.as_ref().unwrap()) == "stalls/count" {
                continue;
            }
            kinds.push(kind(dictionary, profile.sample_type.as_ref().unwrap()));
            assert_eq!(
                (kind(dictionary, profile.period_type.as_ref().unwrap()).as_str(), profile.period),
                ("space/bytes", MEAN as i64)
            );
        }
        assert_eq!(
            kinds,
            ["alloc_objects/count", "alloc_space/bytes", "inuse_objects/count", "inuse_space/bytes"]
        );
        // The executable has a build id.
        let mapping = at(&dictionary.mapping_table, 1);
        assert_eq!(mapping.attribute_indices.len(), 1, "{mapping:?}");
        telemetry.shutdown().unwrap();
    }
}

#[inline(never)]
fn blocks_its_worker() {
    thread::sleep(Duration::from_millis(1500));
    black_box(());
}

#[test]
fn a_stall_arrives_with_its_function_and_its_attributes() {
    let _alone = alone();
    let receiver = Receiver::start();
    let telemetry = start(otlp::builder(), &receiver.endpoint(), Protocol::HttpProtobuf);
    let metrics = RuntimeMetrics::builder().build(&telemetry.provider().meter("test"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    metrics.watch_runtime("sluggish", runtime.handle());
    telemetry.force_flush().unwrap();
    let begin = Instant::now();
    let row = loop {
        runtime.block_on(runtime.spawn(async { blocks_its_worker() }.with_task_name("blocker"))).unwrap();
        let rows = rows(&flush(&telemetry, &receiver).message);
        let is_it = |row: &&support::otlp_profile::Row| {
            row.kind == "delay/nanoseconds"
                && row.functions.iter().any(|name| name.contains("blocks_its_worker"))
        };
        if let Some(row) = rows.iter().find(is_it) {
            break row.clone();
        }
        // A watcher without CPU may have missed it.
        assert!(begin.elapsed() < LONG, "{rows:#?}");
    };
    assert!(row.value > 0, "{row:?}");
    let attribute = |key: &str| row.attributes.get(key).map(String::as_str);
    assert_eq!(attribute("tokio.runtime.name"), Some("sluggish"), "{row:?}");
    assert_eq!(attribute("tokio.stall.cause"), Some("blocked"), "{row:?}");
    assert_eq!(attribute("rust.task.name"), Some("blocker"), "{row:?}");
    telemetry.shutdown().unwrap();
    // All that was sent is what the process has.
    let all: Vec<_> = receiver.profiles().exports().iter().flat_map(|export| rows(&export.message)).collect();
    let own: i64 = profile::stalls()
        .to_folded()
        .lines()
        .filter(|line| line.contains("blocks_its_worker"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap())
        .sum();
    assert_eq!(sum(&all, "delay/nanoseconds", "blocks_its_worker"), own);
}

#[inline(never)]
fn computes(until: Instant) {
    let mut sum = 0_u64;
    while Instant::now() < until {
        for number in 0..10_000_u64 {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(number));
        }
    }
}

#[test]
fn cpu_profiles_are_exported_on_request() {
    let _alone = alone();
    let receiver = Receiver::start();
    let builder = otlp::builder().cpu_profile_every(Duration::from_secs(1));
    let telemetry = start(builder, &receiver.endpoint(), Protocol::HttpProtobuf);
    let busy = thread::Builder::new().name("busy".into());
    let busy = busy.spawn(|| computes(Instant::now() + Duration::from_secs(4))).unwrap();
    let begin = Instant::now();
    let (rows, export) = loop {
        assert!(receiver.profiles().wait_for(1, LONG), "no profile");
        let export = receiver.profiles().take().remove(0);
        let rows = rows(&export.message);
        if sum(&rows, "cpu/nanoseconds", "computes") > 0 {
            break (rows, export);
        }
        assert!(begin.elapsed() < LONG, "{rows:#?}");
    };
    let row = rows.iter().find(|row| row.functions.iter().any(|name| name.contains("computes"))).unwrap();
    assert_eq!(row.attributes.get("thread.name").map(String::as_str), Some("busy"));
    assert!(sum(&rows, "samples/count", "computes") > 0);
    let dictionary = export.message.dictionary.as_ref().unwrap();
    let first = profiles(&export.message).next().unwrap();
    let period = (kind(dictionary, first.period_type.as_ref().unwrap()), first.period);
    assert_eq!(period, ("cpu/nanoseconds".into(), 10_000_000));
    busy.join().unwrap();
    telemetry.shutdown().unwrap();
}

#[test]
fn a_shutdown_exports_the_last_changes() {
    let _alone = alone();
    let receiver = Receiver::start();
    let telemetry = start(otlp::builder(), &receiver.endpoint(), Protocol::Grpc);
    telemetry.force_flush().unwrap();
    flush(&telemetry, &receiver);
    let leaked = leaking_function();
    telemetry.shutdown().unwrap();
    let last = rows(&receiver.profiles().last().unwrap().message);
    assert!(sum(&last, "inuse_space/bytes", "leaking_function") > LEAKED / 2);
    drop(leaked);
    // A process that ends before the first profile is due does not wait for one.
    let receiver = Receiver::start();
    let telemetry = start(otlp::builder(), &receiver.endpoint(), Protocol::Grpc);
    telemetry.force_flush().unwrap();
    telemetry.shutdown().unwrap();
    assert_eq!((receiver.requests(), receiver.profiles().requests()), (2, 0));
}
