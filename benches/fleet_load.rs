//! Sends the exports of a thousand processes, each with its own connection, through one real Collector with the configuration
//! `deploy/fleet/agent.yaml`, and measures its cost. All points that go in must come out.
//!
//! `OTELCOL=path/to/otelcol cargo bench -p benches --bench fleet_load`

use support::reader;

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{CountingAllocator, TaskExt, init_runtime_metrics};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use prost::Message;
use reader::Reader;
use tokio::time::{interval, sleep, timeout};
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

const PROCESSES: usize = 1_000;
const EXPORTS: usize = 4;
/// Twelve times as often as the default interval of a minute: one Collector with 12 000 processes.
const INTERVAL: Duration = Duration::from_secs(5);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let program = std::env::var_os("OTELCOL").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/tools/otelcol"),
        PathBuf::from,
    );
    if !program.exists() {
        println!("skipped: no Collector at {}; set OTELCOL", program.display());
        return Ok(());
    }

    let out = Arc::new(Sink::default());
    let gateway = serve(Arc::clone(&out))?;
    let collector = Collector::start(&program, gateway)?;
    let process = Process::start();
    let one = process.export(0);
    println!(
        "{PROCESSES} processes, an export every {} s, {EXPORTS} times: {} points, {} series in Prometheus, {} bytes each",
        INTERVAL.as_secs(),
        points(&one),
        series(&one),
        one.encoded_len(),
    );

    let sent = Arc::new(AtomicUsize::new(0));
    let idle = collector.cpu()?;
    let start = Instant::now();
    let mut streams = Vec::new();
    for number in 0..PROCESSES {
        let (process, sent) = (process.clone(), Arc::clone(&sent));
        let client = MetricsServiceClient::new(collector.connect().await?)
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip);
        streams.push(tokio::spawn(stream(number, client, process, sent)));
    }
    for stream in streams {
        stream.await??;
    }
    let (sent, took) = (sent.load(Ordering::Relaxed), start.elapsed());

    let arrived = timeout(Duration::from_secs(60), out.until(sent)).await;
    let cpu = collector.cpu()? - idle;
    let (received, instances) =
        (out.points.load(Ordering::Relaxed), out.instances.lock().map_or(0, |seen| seen.len()));
    let exports = (PROCESSES * EXPORTS) as f64;
    println!("points in   {sent}");
    println!("points out  {received}, of {instances} processes");
    println!("took        {:.1} s", took.as_secs_f64());
    println!(
        "Collector   {:.2} s of CPU, {:.0} us an export; {} MB resident at most",
        cpu,
        cpu / exports * 1e6,
        collector.peak_megabytes()?
    );
    println!(
        "            {:.1} % of one CPU for {PROCESSES} processes that export once a minute",
        cpu / EXPORTS as f64 / 60.0 * 100.0
    );
    if arrived.is_err() || received != sent || instances != PROCESSES {
        return Err("what went in did not come out".into());
    }
    Ok(())
}

/// Sends the exports of one process, at its moment within the interval.
async fn stream(
    number: usize,
    mut client: MetricsServiceClient<Channel>,
    process: Process,
    sent: Arc<AtomicUsize>,
) -> std::result::Result<(), Status> {
    sleep(INTERVAL.mul_f64(number as f64 / PROCESSES as f64)).await;
    let mut ticks = interval(INTERVAL);
    for _ in 0..EXPORTS {
        ticks.tick().await;
        let request = process.export(number);
        let points = points(&request);
        let answer = client.export(request).await?.into_inner();
        if let Some(refused) = answer.partial_success.filter(|part| part.rejected_data_points > 0) {
            return Err(Status::data_loss(refused.error_message));
        }
        sent.fetch_add(points, Ordering::Relaxed);
    }
    Ok(())
}

/// Returns an export of this process, under a number of names.
#[derive(Clone)]
struct Process {
    request: Arc<ExportMetricsServiceRequest>,
}

impl Process {
    fn start() -> Self {
        let reader = Reader::cumulative();
        let provider = SdkMeterProvider::builder().with_reader(reader.clone()).build();
        init_runtime_metrics(&provider.meter("fleet"));
        for name in ["accept", "request", "cache", "report"] {
            tokio::spawn(std::future::pending::<()>().with_task_name(name));
        }
        std::thread::sleep(Duration::from_millis(500));
        let mut metrics = ResourceMetrics::default();
        reader.collect(&mut metrics).expect("the provider is alive");
        Process { request: Arc::new(ExportMetricsServiceRequest::from(&metrics)) }
    }

    fn export(&self, number: usize) -> ExportMetricsServiceRequest {
        let mut request = self.request.as_ref().clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        for resource in &mut request.resource_metrics {
            let attribute = |key: &str, value: String| KeyValue {
                key: key.into(),
                value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
                ..KeyValue::default()
            };
            if let Some(resource) = &mut resource.resource {
                resource.attributes.retain(|old| old.key != "service.name");
                resource.attributes.push(attribute("service.name", "fleet".into()));
                resource
                    .attributes
                    .push(attribute("service.instance.id", format!("00000000-0000-4000-8000-{number:012}")));
            }
        }
        let metrics = request
            .resource_metrics
            .iter_mut()
            .flat_map(|resource| &mut resource.scope_metrics)
            .flat_map(|scope| &mut scope.metrics);
        for metric in metrics {
            match &mut metric.data {
                Some(Data::Gauge(gauge)) => {
                    gauge.data_points.iter_mut().for_each(|point| point.time_unix_nano = now)
                }
                Some(Data::Sum(sum)) => {
                    sum.data_points.iter_mut().for_each(|point| point.time_unix_nano = now)
                }
                Some(Data::Histogram(histogram)) => {
                    histogram.data_points.iter_mut().for_each(|point| point.time_unix_nano = now)
                }
                _ => {}
            }
        }
        request
    }
}

fn data(request: &ExportMetricsServiceRequest) -> impl Iterator<Item = &Data> {
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    scopes.flat_map(|scope| &scope.metrics).filter_map(|metric| metric.data.as_ref())
}

fn points(request: &ExportMetricsServiceRequest) -> usize {
    data(request)
        .map(|data| match data {
            Data::Gauge(gauge) => gauge.data_points.len(),
            Data::Sum(sum) => sum.data_points.len(),
            Data::Histogram(histogram) => histogram.data_points.len(),
            _ => 0,
        })
        .sum()
}

/// Counts series as Prometheus does: a histogram has one for each bucket, its sum and its count.
fn series(request: &ExportMetricsServiceRequest) -> usize {
    let buckets = data(request).filter_map(|data| match data {
        Data::Histogram(histogram) => {
            Some(histogram.data_points.iter().map(|point| point.bucket_counts.len() + 1).sum::<usize>())
        }
        _ => None,
    });
    points(request) + buckets.sum::<usize>()
}

/// Stands for the gateways and counts what it receives.
#[derive(Default)]
struct Sink {
    points: AtomicUsize,
    instances: Mutex<HashSet<String>>,
}

impl Sink {
    async fn until(&self, sent: usize) {
        while self.points.load(Ordering::Relaxed) < sent {
            sleep(Duration::from_millis(50)).await;
        }
    }
}

struct Counting(Arc<Sink>);

#[tonic::async_trait]
impl MetricsService for Counting {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> std::result::Result<Response<ExportMetricsServiceResponse>, Status> {
        let request = request.into_inner();
        if let Ok(mut seen) = self.0.instances.lock() {
            for resource in request.resource_metrics.iter().filter_map(|metrics| metrics.resource.as_ref()) {
                let id = resource.attributes.iter().find(|attribute| attribute.key == "service.instance.id");
                if let Some(Value::StringValue(id)) = id.and_then(|id| id.value.as_ref()?.value.as_ref()) {
                    seen.insert(id.clone());
                }
            }
        }
        self.0.points.fetch_add(points(&request), Ordering::Relaxed);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn serve(sink: Arc<Sink>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let incoming = tonic::transport::server::TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?);
    let service = MetricsServiceServer::new(Counting(sink))
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(64 << 20);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    Ok(address)
}

/// The real Collector. Dropping the value ends it.
struct Collector {
    child: Child,
    port: u16,
}

impl Collector {
    fn start(program: &Path, gateway: SocketAddr) -> Result<Self> {
        let port = free_port()?;
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/fleet/agent.yaml");
        let child = Command::new(program)
            .arg("--config")
            .arg(config)
            .env("GATEWAY", gateway.to_string())
            .env("GRPC_PORT", port.to_string())
            .env("HTTP_PORT", free_port()?.to_string())
            .env("OWN_METRICS_PORT", free_port()?.to_string())
            .env("GOMEMLIMIT", "160MiB")
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Collector { child, port })
    }

    /// Opens a connection as soon as the Collector listens.
    async fn connect(&self) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port))?;
        let attempts = async {
            loop {
                match endpoint.connect().await {
                    Ok(channel) => break channel,
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        };
        Ok(timeout(Duration::from_secs(10), attempts).await?)
    }

    /// Returns the CPU time so far, in seconds.
    fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: f64 =
            after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(ticks / 100.0)
    }

    fn peak_megabytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM")).ok_or("no VmHWM")?;
        Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? / 1024)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
