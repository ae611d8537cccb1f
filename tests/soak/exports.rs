//! Exports metrics and profiles over both protocols to collectors that fail in all ways, and checks that exports arrive
//! again afterwards.

use std::time::Duration;

use opentelemetry_instrumentation_runtime::otlp::{self, Protocol, Telemetry};
use opentelemetry_instrumentation_runtime::{RuntimeMetrics, profile};
use support::receiver::{Answer, Receiver};
use tonic::Code;

use crate::broken::{Broken, Fault};
use crate::soak::{Soak, more};

const PROTOCOLS: [Protocol; 3] = [Protocol::Grpc, Protocol::HttpProtobuf, Protocol::HttpJson];
/// How long each fault lasts.
const LASTING: Duration = Duration::from_millis(400);
/// How long an export may take. On a busy machine, one to a collector that works takes a good part of it.
const TIMEOUT: Duration = Duration::from_secs(5);

pub fn run(soak: &Soak) {
    for turn in 0_usize.. {
        if !soak.goes_on() {
            return;
        }
        let protocol = PROTOCOLS[turn % PROTOCOLS.len()];
        to_failing(soak, protocol, turn);
        for fault in Fault::ALL {
            if soak.goes_on() {
                to_broken(soak, protocol, fault);
            }
        }
    }
}

/// Exports to a collector whose answers are failures by turns.
fn to_failing(soak: &Soak, protocol: Protocol, turn: usize) {
    let collector = Receiver::start();
    let Some((telemetry, metrics)) = export(soak, &collector.endpoint(), protocol, turn.is_multiple_of(2))
    else {
        return;
    };
    for answer in answers(protocol != Protocol::Grpc) {
        collector.always(answer.clone());
        collector.profiles().always(profiles_answer(&answer));
        soak.pause(LASTING);
        // An error is what is expected here.
        drop(telemetry.force_flush());
        collector.take();
        collector.always(Answer::Take);
        collector.profiles().always(Answer::Take);
        let arrives = collector.wait_for(1, Duration::from_secs(120));
        soak.check(arrives, || {
            format!("no export arrives after {answer:?}, {protocol:?}, turn {turn}:\n{}", profile::threads())
        });
        for export in collector.take() {
            more(&soak.done.exports);
            soak.check(export.metric("rust.memory.used").is_some(), || "an export without memory".into());
        }
        collector.profiles().take();
        if !soak.goes_on() {
            break;
        }
    }
    metrics.stop();
    let end = telemetry.shutdown();
    soak.check(end.is_ok(), || format!("the last export to a collector that works: {end:?}"));
}

/// Starts an exporter that loses no time.
fn export(
    soak: &Soak,
    endpoint: &str,
    protocol: Protocol,
    with_cpu: bool,
) -> Option<(Telemetry, RuntimeMetrics)> {
    let mut builder = otlp::builder().endpoint(endpoint).protocol(protocol);
    builder = builder.interval(Duration::from_millis(50)).timeout(TIMEOUT);
    builder = builder.shutdown_timeout(Duration::from_secs(5)).profile_every(Duration::from_millis(500));
    if with_cpu {
        builder = builder.cpu_profile_every(Duration::from_secs(1));
    }
    match builder.build() {
        Ok(telemetry) => {
            more(&soak.done.exporters);
            let metrics = RuntimeMetrics::builder().runtime("main", &soak.main).build(&telemetry.meter());
            Some((telemetry, metrics))
        }
        Err(error) => {
            soak.fail(format!("no exporter: {error}"));
            None
        }
    }
}

fn answers(over_http: bool) -> Vec<Answer> {
    let refuse = |http, grpc, after: Option<u64>| Answer::Refuse {
        http,
        grpc,
        after: after.map(Duration::from_secs),
        message: "soak",
    };
    let mut answers = vec![
        Answer::TakeAfter(Duration::from_millis(100)),
        Answer::Reject { points: 3, message: "three points are too old" },
        refuse(503, Code::Unavailable, Some(1)),
        refuse(429, Code::ResourceExhausted, Some(1)),
        refuse(413, Code::ResourceExhausted, None),
        refuse(500, Code::Internal, None),
        refuse(401, Code::Unauthenticated, None),
        Answer::Hang,
    ];
    if over_http {
        answers.push(Answer::Say { kind: "text/html", body: b"<html>a login page</html>".to_vec() });
        answers.push(Answer::Say { kind: "application/x-protobuf", body: vec![0xff; 300] });
        answers.push(Answer::Endless);
    }
    answers
}

/// Returns the answer to profiles, which are sent as rarely as once in half a second.
fn profiles_answer(answer: &Answer) -> Answer {
    match answer {
        Answer::Hang => Answer::TakeAfter(Duration::from_millis(200)),
        answer => answer.clone(),
    }
}

/// Exports to something that is no collector.
fn to_broken(soak: &Soak, protocol: Protocol, fault: Fault) {
    let broken = match Broken::start(fault) {
        Ok(broken) => broken,
        Err(error) => return soak.fail(format!("no socket: {error}")),
    };
    let Some((telemetry, metrics)) = export(soak, &broken.endpoint(), protocol, false) else { return };
    soak.pause(LASTING);
    let flushed = telemetry.force_flush();
    soak.check(flushed.is_err(), || format!("an export was delivered to {fault:?}"));
    metrics.stop();
    // Fails too. The time that it may take is limited.
    drop(telemetry);
}
