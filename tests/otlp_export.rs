//! A receiver gets the values over all protocols, and every way to end delivers the last export.

use support::receiver;

use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::init_runtime_metrics;
use opentelemetry_instrumentation_runtime::otlp::{self, Protocol, Telemetry};
use receiver::{Export, Receiver};

const ALL: [Protocol; 3] = [Protocol::Grpc, Protocol::HttpProtobuf, Protocol::HttpJson];

/// So long that only a flush exports.
fn telemetry(receiver: &Receiver, protocol: Protocol) -> Telemetry {
    otlp::builder()
        .endpoint(receiver.endpoint())
        .protocol(protocol)
        .interval(Duration::from_secs(3600))
        .timeout(Duration::from_secs(5))
        .build()
        .unwrap()
}

fn only_export(receiver: &Receiver) -> Export {
    let exports = receiver.exports();
    assert_eq!(exports.len(), 1, "{exports:?}");
    exports.into_iter().next().unwrap()
}

#[test]
fn the_values_arrive() {
    for protocol in ALL {
        let receiver = Receiver::start();
        let telemetry = telemetry(&receiver, protocol);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let _inside = runtime.enter();
        init_runtime_metrics(&telemetry.meter());
        telemetry.force_flush().unwrap();
        let export = only_export(&receiver);
        let workers = export.metric("tokio.worker.count").expect("it is there");
        assert_eq!(receiver::points(workers).iter().map(|point| point.value).sum::<f64>(), 2.0);
        assert_eq!(workers.unit, "{worker}");
        let scopes: Vec<_> = export.message.resource_metrics[0].scope_metrics.iter().collect();
        assert_eq!(scopes.len(), 1);
        let scope = scopes[0].scope.as_ref().unwrap();
        assert_eq!(scope.name, "opentelemetry-instrumentation-runtime");
        assert_eq!(scope.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(scopes[0].schema_url, "https://opentelemetry.io/schemas/1.44.0");
    }
}

#[test]
fn requests_follow_the_protocol() {
    for (protocol, path, kind) in [
        (
            Protocol::Grpc,
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            "application/grpc",
        ),
        (Protocol::HttpProtobuf, "/v1/metrics", "application/x-protobuf"),
        (Protocol::HttpJson, "/v1/metrics", "application/json"),
    ] {
        let receiver = Receiver::start();
        let telemetry = otlp::builder()
            .endpoint(receiver.endpoint())
            .protocol(protocol)
            .header("x-api-key", "a secret")
            .resource([KeyValue::new("service.name", "shop")])
            .build()
            .unwrap();
        telemetry.provider().meter("app").u64_counter("orders").build().add(3, &[]);
        telemetry.force_flush().unwrap();
        let export = only_export(&receiver);
        assert_eq!(export.path, path);
        assert_eq!(export.headers["content-type"], kind);
        assert_eq!(export.headers["x-api-key"], "a secret");
        let agent = concat!("opentelemetry-instrumentation-runtime/", env!("CARGO_PKG_VERSION"));
        assert_eq!(export.headers["user-agent"], agent);
        assert_eq!(export.value("orders"), Some(3.0));
        assert_eq!(export.resource("service.name").as_deref(), Some("shop"));
        assert_eq!(export.resource("telemetry.sdk.language").as_deref(), Some("rust"));
        assert_eq!(export.resource("process.pid"), Some(std::process::id().to_string()));
        assert_eq!(export.resource("service.instance.id").map(|id| id.len()), Some(36));
    }
}

#[test]
fn exports_keep_the_interval() {
    for protocol in ALL {
        let receiver = Receiver::start();
        let telemetry = otlp::builder()
            .endpoint(receiver.endpoint())
            .protocol(protocol)
            .interval(Duration::from_millis(50))
            .build()
            .unwrap();
        telemetry.provider().meter("app").u64_counter("orders").build().add(1, &[]);
        let start = Instant::now();
        assert!(receiver.wait_for(5, Duration::from_secs(10)));
        assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    }
}
