//! Every loss is logged once with its number, and the line that ends an outage has the sum. Advice is no loss.

use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp::{self, Protocol, Telemetry};
use support::log;
use support::receiver::{Answer, Receiver};
use support::scripted::{Scripted, answer};

const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];

fn telemetry(endpoint: &str, protocol: Protocol) -> Telemetry {
    let hour = Duration::from_secs(3600);
    let telemetry = otlp::builder().endpoint(endpoint).protocol(protocol).interval(hour).build().unwrap();
    telemetry.provider().meter("app").u64_counter("orders").build().add(1, &[]);
    telemetry
}

/// One test, since the log belongs to the process.
#[test]
fn the_log_adds_up_losses() {
    log::listen();
    for protocol in BOTH {
        advice_is_no_loss(protocol);
        losses_are_added_up(protocol);
        a_loss_that_lasts_until_the_end_is_added_up_too(protocol);
        a_loss_at_the_end_is_reported_once(protocol);
    }
    json_counts_like_protobuf();
}

fn advice_is_no_loss(protocol: Protocol) {
    let receiver = Receiver::start();
    let telemetry = telemetry(&receiver.endpoint(), protocol);
    let advice = Answer::Reject { points: 0, message: "use\r\ngzip" };
    receiver.answer([
        advice.clone(),
        advice,
        Answer::Reject { points: 40, message: "too old" },
        Answer::Take,
    ]);
    for _ in 0..4 {
        telemetry.force_flush().unwrap();
    }
    let lines = log::take();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[0].starts_with("INFO ") && lines[0].contains("says: use gzip"), "{lines:#?}");
    assert!(lines[1].starts_with("WARN ") && lines[1].contains("rejects 40 points: too old"), "{lines:#?}");
    assert!(lines[2].starts_with("INFO ") && lines[2].contains("40 points were rejected"), "{lines:#?}");
    telemetry.shutdown().unwrap();
    assert_eq!(log::take(), [""; 0]);
}

fn losses_are_added_up(protocol: Protocol) {
    let receiver = Receiver::start();
    let telemetry = telemetry(&receiver.endpoint(), protocol);
    let refuse = || Answer::Refuse {
        http: 400,
        grpc: tonic::Code::InvalidArgument,
        after: None,
        message: "on purpose",
    };
    let reject = |points| Answer::Reject { points, message: "too old" };
    receiver.answer([reject(3), refuse(), refuse(), reject(4), refuse(), Answer::Take]);
    let results: Vec<_> = (0..6).map(|_| telemetry.force_flush().is_ok()).collect();
    assert_eq!(results, [true, false, false, true, false, true]);
    let lines = log::take();
    let expected = [
        ("WARN ", "rejects 3 points: too old"),
        ("WARN ", "on purpose"),
        ("INFO ", "2 exports were lost"),
        ("WARN ", "on purpose"),
        ("INFO ", "1 exports were lost"),
        ("INFO ", "7 points were rejected"),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, (level, text)) in lines.iter().zip(expected) {
        assert!(line.starts_with(level) && line.contains(text), "{text} is not in {line}");
    }
    telemetry.shutdown().unwrap();
    log::take();
}

fn a_loss_that_lasts_until_the_end_is_added_up_too(protocol: Protocol) {
    let receiver = Receiver::start();
    let telemetry = telemetry(&receiver.endpoint(), protocol);
    receiver.always(Answer::Refuse {
        http: 400,
        grpc: tonic::Code::InvalidArgument,
        after: None,
        message: "on purpose",
    });
    telemetry.force_flush().unwrap_err();
    telemetry.force_flush().unwrap_err();
    telemetry.shutdown().unwrap_err();
    let lines = log::take();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[1].contains("until the end") && lines[1].contains("3 exports were lost"), "{lines:#?}");
}

/// Dropping reports nothing that the exporting thread has reported.
fn a_loss_at_the_end_is_reported_once(protocol: Protocol) {
    let receiver = Receiver::start();
    drop(telemetry(&receiver.endpoint(), protocol));
    assert_eq!(log::take(), [""; 0], "nothing is lost");
    receiver.always(Answer::Refuse {
        http: 400,
        grpc: tonic::Code::InvalidArgument,
        after: None,
        message: "on purpose",
    });
    drop(telemetry(&receiver.endpoint(), protocol));
    let refused = log::take();
    let endpoint = receiver.endpoint();
    drop(receiver);
    drop(telemetry(&endpoint, protocol));
    let unreachable = log::take();
    for (lines, why) in [(refused, "on purpose"), (unreachable, "no connection")] {
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert_eq!(lines.iter().filter(|line| line.contains(why)).count(), 1, "{lines:#?}");
        assert!(lines[1].contains("until the end") && lines[1].contains("1 exports were lost"), "{lines:#?}");
    }
}

fn json_counts_like_protobuf() {
    for (media, body) in [
        ("application/json", r#"{"partialSuccess":{"rejectedDataPoints":"40","errorMessage":"too\nold"}}"#),
        (
            "Application/JSON; charset=UTF-8",
            r#"{"partial_success":{"rejected_data_points":40,"error_message":"too old"}}"#,
        ),
    ] {
        let server = Scripted::saying(answer("200 OK", &[("content-type", media)], body));
        let telemetry = telemetry(&server.endpoint(), Protocol::HttpProtobuf);
        telemetry.force_flush().unwrap();
        telemetry.force_flush().unwrap();
        telemetry.shutdown().unwrap();
        let lines = log::take();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains("rejects 40 points: too old"), "{lines:#?}");
        assert!(lines[1].contains("120 points were rejected"), "{lines:#?}");
    }
}
