//! Measures one export of the default metrics, in bytes on the wire, allocations and time, beside the exporters of
//! `opentelemetry-otlp` with the SDK's periodic reader.
//!
//! `cargo bench -p benches --bench export`
//!
//! Each row runs in a separate process, so that its allocator serves nothing else. The receiver is another process, behind a
//! relay that counts the bytes.

use support::proxy;
use support::receiver;

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write, stdin};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, init_runtime_metrics, otlp};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use proxy::Proxy;
use receiver::Receiver;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

const WARM_UP: usize = 20;
const ROUNDS: usize = 300;
const NEVER: Duration = Duration::from_secs(86_400);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        None => table(),
        Some("receive") => receive(),
        Some(exporter) => export(exporter),
    }
}

fn table() -> Result<(), Box<dyn Error>> {
    println!("one export of the default set, flushed {ROUNDS} times; the time is a median");
    println!("{:<44} {:>9} {:>9} {:>9} {:>9}", "", "bytes", "allocs", "alloc B", "us");
    for (name, exporter, protocol, compression) in [
        ("this crate, gRPC", "ours", "grpc", "none"),
        ("this crate, gRPC, gzip", "ours", "grpc", "gzip"),
        ("this crate, HTTP", "ours", "http/protobuf", "none"),
        ("this crate, HTTP, gzip", "ours", "http/protobuf", "gzip"),
        ("opentelemetry-otlp, gRPC", "stock-grpc", "grpc", "none"),
        ("opentelemetry-otlp, HTTP, blocking reqwest", "stock-http", "http/protobuf", "none"),
    ] {
        let mut counter = Counter::start()?;
        let output = Command::new(std::env::current_exe()?)
            .arg(exporter)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &counter.endpoint)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
            .stderr(Stdio::inherit())
            .output()?;
        let bytes = counter.bytes()? / (WARM_UP + ROUNDS) as u64;
        print!("{name:<44} {bytes:>9} {}", String::from_utf8(output.stdout)?);
    }
    Ok(())
}

/// The process that receives the exports and counts their bytes.
struct Counter {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    endpoint: String,
}

impl Counter {
    fn start() -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("receive")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ask = process.stdin.take().ok_or("no stdin")?;
        let mut answers = BufReader::new(process.stdout.take().ok_or("no stdout")?);
        let mut endpoint = String::new();
        answers.read_line(&mut endpoint)?;
        Ok(Counter { process, ask, answers, endpoint: endpoint.trim().to_owned() })
    }

    /// Ends the process.
    fn bytes(&mut self) -> Result<u64, Box<dyn Error>> {
        self.ask.write_all(b"\n")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        self.process.wait()?;
        Ok(answer.trim().parse()?)
    }
}

fn receive() -> Result<(), Box<dyn Error>> {
    let receiver = Receiver::start();
    let proxy = Proxy::start(receiver.address());
    println!("http://{}", proxy.address());
    let _ = stdin().read(&mut [0])?;
    println!("{}", proxy.bytes());
    Ok(())
}

fn export(exporter: &str) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _inside = runtime.enter();
    match exporter {
        "ours" => {
            let telemetry = otlp::builder().interval(NEVER).build()?;
            let metrics = init_runtime_metrics(&telemetry.meter());
            measure(&metrics, || telemetry.force_flush().expect("it is delivered"));
        }
        stock => {
            let endpoint = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT")?;
            let builder = opentelemetry_otlp::MetricExporter::builder();
            let exporter = match stock {
                "stock-grpc" => builder.with_tonic().with_endpoint(endpoint).build()?,
                _ => builder.with_http().with_endpoint(format!("{endpoint}/v1/metrics")).build()?,
            };
            let reader = PeriodicReader::builder(exporter).with_interval(NEVER).build();
            let provider = SdkMeterProvider::builder().with_reader(reader).build();
            let metrics = init_runtime_metrics(&provider.meter("stock"));
            measure(&metrics, || provider.force_flush().expect("it is delivered"));
            provider.shutdown()?;
        }
    }
    Ok(())
}

fn measure(metrics: &RuntimeMetrics, flush: impl Fn()) {
    (0..WARM_UP).for_each(|_| flush());
    let mut times = Vec::with_capacity(ROUNDS);
    let before = allocated(metrics);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        flush();
        times.push(start.elapsed());
    }
    let after = allocated(metrics);
    times.sort();
    let each = |index: usize| (after[index] - before[index]) / ROUNDS as f64;
    println!("{:>9.0} {:>9.0} {:>9.0}", each(0), each(1), times[ROUNDS / 2].as_secs_f64() * 1e6);
}

/// Returns the value of a metric of the whole process.
fn allocated(metrics: &RuntimeMetrics) -> [f64; 2] {
    let snapshot = metrics.snapshot();
    ["rust.memory.allocations", "rust.memory.allocated"].map(|name| {
        let reading = snapshot.get(name).expect("the counting allocator is the global one");
        reading.points()[0].value().as_f64().expect("a number")
    })
}
