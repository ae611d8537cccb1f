//! Endpoints that have no service for profiles, fail, reject or hang: metrics go on, losses are logged once and made up for,
//! no secret is shown, and a shutdown is in time.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::alloc::System;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp::{self, Builder, Protocol, Telemetry};
use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile};
use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};
use support::log;
use support::otlp_profile::{rows, sum};
use support::receiver::{Answer, Receiver};

#[global_allocator]
static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];
const LONG: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const LEAKED: i64 = 4_000_000;

#[inline(never)]
fn leaking_function() {
    std::mem::forget((0..LEAKED / 1000).map(|_| black_box(vec![1_u8; 1000])).collect::<Vec<_>>());
}

fn start(builder: Builder, endpoint: &str, protocol: Protocol) -> Telemetry {
    let telemetry = builder.endpoint(endpoint).protocol(protocol).interval(HOUR).build().unwrap();
    telemetry.provider().meter("app").u64_counter("orders").build().add(1, &[]);
    telemetry
}

/// Exports metrics, with which a profile goes, until there were so many requests with profiles.
fn flush_until(telemetry: &Telemetry, receiver: &Receiver, requests: usize) {
    telemetry.force_flush().unwrap();
    assert!(receiver.profiles().wait_for_requests(requests, LONG), "no profile");
}

/// Returns the lines of the log once there are so many.
fn lines(count: usize) -> Vec<String> {
    let mut lines = log::take();
    let start = Instant::now();
    while lines.len() < count && start.elapsed() < LONG {
        thread::sleep(Duration::from_millis(10));
        lines.extend(log::take());
    }
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

fn refuse(http: u16, grpc: tonic::Code) -> Answer {
    Answer::Refuse { http, grpc, after: None, message: "on purpose" }
}

/// One test, since the log and the profiles belong to the process.
#[test]
fn faults_of_the_profiles_do_not_reach_the_metrics() {
    log::listen();
    without_a_heap_profile_nothing_is_sent();
    // Looking up names allocates a lot, which should not take long.
    HeapProfile::start(128 * 1024).unwrap();
    drop(black_box(vec![1_u8; 64 * 1024]));
    for protocol in BOTH {
        an_endpoint_without_profiles_is_asked_once(protocol);
        a_failure_is_tried_again(protocol);
        a_change_that_was_lost_comes_with_the_next(protocol);
        rejected_profiles_are_counted(protocol);
        quiet_that_profiles_are_asked_for_is_not_that_of_metrics(protocol);
        no_secret_is_shown(protocol);
        a_shutdown_does_not_wait_for_a_profile_that_hangs(protocol);
    }
    a_shutdown_ends_a_cpu_profile();
    without_a_place_for_profiles_there_is_one_line();
}

fn without_a_heap_profile_nothing_is_sent() {
    let receiver = Receiver::start();
    let telemetry = start(otlp::builder(), &receiver.endpoint(), Protocol::Grpc);
    for _ in 0..3 {
        telemetry.force_flush().unwrap();
    }
    telemetry.shutdown().unwrap();
    assert_eq!((receiver.requests(), receiver.profiles().requests()), (4, 0));
    lines(0);
}

fn an_endpoint_without_profiles_is_asked_once(protocol: Protocol) {
    let receiver = Receiver::start();
    receiver.profiles().always(refuse(404, tonic::Code::Unimplemented));
    let telemetry = start(otlp::builder(), &receiver.endpoint(), protocol);
    telemetry.force_flush().unwrap();
    flush_until(&telemetry, &receiver, 1);
    let line = lines(1).remove(0);
    assert!(line.starts_with("WARN ") && line.contains("the endpoint has no service for profiles"), "{line}");
    assert!(line.contains("on purpose"), "{line}");
    for _ in 0..3 {
        telemetry.force_flush().unwrap();
    }
    telemetry.shutdown().unwrap();
    assert_eq!((receiver.exports().len(), receiver.profiles().requests()), (6, 1));
    lines(0);
}

fn a_failure_is_tried_again(protocol: Protocol) {
    let receiver = Receiver::start();
    receiver.profiles().answer([refuse(503, tonic::Code::Unavailable)]);
    let telemetry = start(otlp::builder(), &receiver.endpoint(), protocol);
    telemetry.force_flush().unwrap();
    telemetry.force_flush().unwrap();
    assert!(receiver.profiles().wait_for(1, LONG));
    assert_eq!(receiver.profiles().requests(), 2);
    telemetry.shutdown().unwrap();
    lines(0);
}

fn a_change_that_was_lost_comes_with_the_next(protocol: Protocol) {
    let receiver = Receiver::start();
    receiver.profiles().answer([refuse(400, tonic::Code::InvalidArgument)]);
    let telemetry = start(otlp::builder(), &receiver.endpoint(), protocol);
    telemetry.force_flush().unwrap();
    flush_until(&telemetry, &receiver, 1);
    let line = lines(1).remove(0);
    assert!(line.starts_with("WARN ") && line.contains("profiles are not delivered"), "{line}");
    leaking_function();
    flush_until(&telemetry, &receiver, 2);
    assert!(receiver.profiles().wait_for(1, LONG));
    let line = lines(1).remove(0);
    assert!(line.starts_with("INFO ") && line.contains("profiles are delivered again"), "{line}");
    assert!(line.contains("1 exports were lost"), "{line}");
    // What was in use before the loss is there too.
    let sent = rows(&receiver.profiles().last().unwrap().message);
    let folded = profile::heap().to_folded();
    let own = folded.lines().filter(|line| line.contains("leaking_function"));
    let own: i64 = own.map(|line| line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap()).sum();
    assert_eq!(sum(&sent, "inuse_space/bytes", "leaking_function"), own);
    telemetry.shutdown().unwrap();
    lines(0);
}

fn rejected_profiles_are_counted(protocol: Protocol) {
    let receiver = Receiver::start();
    receiver.profiles().answer([Answer::Reject { points: 2, message: "too\nold" }]);
    let telemetry = start(otlp::builder(), &receiver.endpoint(), protocol);
    telemetry.force_flush().unwrap();
    flush_until(&telemetry, &receiver, 1);
    let line = lines(1).remove(0);
    assert!(line.starts_with("WARN ") && line.contains("rejects 2 profiles: too old"), "{line}");
    telemetry.shutdown().unwrap();
    let line = lines(1).remove(0);
    assert!(line.starts_with("INFO ") && line.contains("2 profiles were rejected"), "{line}");
}

fn quiet_that_profiles_are_asked_for_is_not_that_of_metrics(protocol: Protocol) {
    let receiver = Receiver::start();
    let (http, grpc) = (503, tonic::Code::Unavailable);
    receiver.profiles().answer([Answer::Refuse { http, grpc, after: Some(HOUR), message: "on purpose" }]);
    let interval = Duration::from_millis(100);
    let builder = otlp::builder().endpoint(receiver.endpoint()).protocol(protocol);
    let telemetry = builder.interval(interval).profile_every(interval).build().unwrap();
    telemetry.provider().meter("app").u64_counter("orders").build().add(1, &[]);
    assert!(receiver.profiles().wait_for_requests(1, LONG));
    let exports = receiver.exports().len();
    assert!(receiver.wait_for(exports + 10, LONG), "the metrics go on");
    assert_eq!(receiver.profiles().requests(), 1);
    telemetry.shutdown().unwrap();
    let line = log::take().remove(0);
    assert!(line.contains("profiles are not delivered"), "{line}");
}

fn no_secret_is_shown(protocol: Protocol) {
    let receiver = Receiver::start();
    let echo = "no such key: s3cret-of-profiles";
    for (http, grpc) in [(401, tonic::Code::Unauthenticated), (404, tonic::Code::Unimplemented)] {
        receiver.profiles().answer([Answer::Refuse { http, grpc, after: None, message: echo }]);
        let builder = otlp::builder().header_fn("x-api-key", || "s3cret-of-profiles".to_owned());
        let telemetry = start(builder, &receiver.endpoint(), protocol);
        telemetry.force_flush().unwrap();
        let requests = receiver.profiles().requests();
        flush_until(&telemetry, &receiver, requests + 1);
        let line = lines(1).remove(0);
        assert!(line.contains("no such key: [hidden]"), "{line}");
        telemetry.shutdown().unwrap();
        log::take();
    }
}

fn a_shutdown_does_not_wait_for_a_profile_that_hangs(protocol: Protocol) {
    let receiver = Receiver::start();
    receiver.profiles().always(Answer::Hang);
    let builder = otlp::builder().timeout(LONG).shutdown_timeout(Duration::from_secs(2));
    let telemetry = start(builder, &receiver.endpoint(), protocol);
    telemetry.force_flush().unwrap();
    flush_until(&telemetry, &receiver, 1);
    // The metrics do not wait for the profile.
    telemetry.force_flush().unwrap();
    let start = Instant::now();
    assert_eq!(telemetry.shutdown(), Ok(()), "the metrics arrive");
    let time = start.elapsed();
    assert!(time < LONG / 2, "{time:?}");
    assert_eq!(receiver.exports().len(), 4);
    drop(receiver);
    // The thread ends and logs what was lost, if it gets to it before the next test.
    thread::sleep(Duration::from_millis(500));
    let lines = log::take();
    assert!(lines.iter().all(|line| line.contains("profiles")), "{lines:#?}");
}

fn a_shutdown_ends_a_cpu_profile() {
    let receiver = Receiver::start();
    let builder = otlp::builder().cpu_profile_every(Duration::from_secs(10)).shutdown_timeout(LONG);
    let telemetry = start(builder, &receiver.endpoint(), Protocol::HttpProtobuf);
    let begin = Instant::now();
    // Another one cannot be taken as soon as it runs.
    while profile::cpu(Duration::from_millis(1)).is_ok() {
        assert!(begin.elapsed() < LONG, "no CPU profile");
        thread::sleep(Duration::from_millis(50));
    }
    let start = Instant::now();
    telemetry.shutdown().unwrap();
    let time = start.elapsed();
    assert!(time < Duration::from_secs(9), "{time:?}");
    lines(0);
}

fn without_a_place_for_profiles_there_is_one_line() {
    // Exports in a child process, since the environment belongs to all threads.
    let receiver = Receiver::start();
    let endpoint = format!("{}/in", receiver.endpoint());
    let said = support::child::export_once(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &endpoint)]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("profiles are not exported") && said[0].contains("/v1/metrics"), "{said:?}");
    assert_eq!(said[1], "delivered");
    assert_eq!((receiver.exports()[0].path.as_str(), receiver.profiles().requests()), ("/in", 0));
}

#[test]
#[ignore = "run by the other test, in a child process"]
fn child_exports_once() {
    log::listen();
    HeapProfile::start(16 * 1024).unwrap();
    let telemetry = otlp::install().unwrap();
    for line in log::take().iter().filter(|line| line.starts_with("WARN")) {
        println!("RESULT {line}");
    }
    telemetry.provider().meter("app").u64_counter("orders").build().add(1, &[]);
    leaking_function();
    let flushed = telemetry.force_flush().and_then(|()| telemetry.force_flush());
    support::child::report(flushed.and_then(|()| telemetry.shutdown()));
}
