//! Metrics, traces and logs through OpenTelemetry's own exporters, beside this library's metrics:
//! `cargo run -p tests --example own_provider`, with a collector on localhost.
//!
//! This library only registers its instruments, and its view limits their memory. The three providers share one resource,
//! and one endpoint, `OTEL_EXPORTER_OTLP_ENDPOINT`. `OTEL_EXPORTER_OTLP_PROTOCOL=grpc` speaks gRPC, anything else
//! `http/protobuf`.

use std::error::Error;

use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_instrumentation_runtime::{CountingAllocator, TaskExt, init_runtime_metrics, view};
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::instrument;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let providers = {
        // The exporters for gRPC are made inside a runtime, and use it until they are shut down.
        let _inside = runtime.enter();
        Providers::start()?
    };
    let result = runtime.block_on(async {
        init_runtime_metrics(&providers.metrics.meter("my-service"));
        tokio::spawn(serve().with_task_name("server")).await
    });
    // Outside of the runtime: a shutdown waits for the exporters, which work on it.
    providers.shutdown()?;
    Ok(result?)
}

#[instrument]
async fn serve() {
    tracing::info!(orders = 3, "served");
}

struct Providers {
    metrics: SdkMeterProvider,
    traces: SdkTracerProvider,
    logs: SdkLoggerProvider,
}

impl Providers {
    fn start() -> Result<Self, Box<dyn Error>> {
        let is_grpc = std::env::var("OTEL_EXPORTER_OTLP_PROTOCOL").is_ok_and(|protocol| protocol == "grpc");
        let (metric_exporter, span_exporter, log_exporter) = match is_grpc {
            true => (
                MetricExporter::builder().with_tonic().build()?,
                SpanExporter::builder().with_tonic().build()?,
                LogExporter::builder().with_tonic().build()?,
            ),
            false => (
                MetricExporter::builder().with_http().build()?,
                SpanExporter::builder().with_http().build()?,
                LogExporter::builder().with_http().build()?,
            ),
        };
        let resource = Resource::builder().with_service_name("own-provider").build();
        let metrics = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_periodic_exporter(metric_exporter)
            .with_view(view)
            .build();
        let traces = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_batch_exporter(span_exporter)
            .build();
        let logs =
            SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(log_exporter).build();
        // What the exporters log must not be exported, which would make them log again.
        let own = Targets::new().with_default(LevelFilter::INFO).with_targets(
            ["h2", "hyper", "opentelemetry", "reqwest", "tonic", "tower"]
                .map(|crate_name| (crate_name, LevelFilter::OFF)),
        );
        let tracer = traces.tracer("my-service");
        tracing_subscriber::registry()
            .with(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(own.clone()))
            .with(OpenTelemetryTracingBridge::new(&logs).with_filter(own))
            .init();
        Ok(Providers { metrics, traces, logs })
    }

    fn shutdown(&self) -> Result<(), Box<dyn Error>> {
        self.traces.shutdown()?;
        self.logs.shutdown()?;
        self.metrics.shutdown()?;
        Ok(())
    }
}
