//! Measures the time and the allocations of one collection of the default metrics, beside the crates that export the same subjects,
//! and of reading one metric alone.
//!
//! `cargo bench -p benches --bench collect`; with `--profile dev`, in a build without optimisation.

use support::reader;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{CountingAllocator, init_runtime_metrics, measure};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use reader::Reader;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

const ROUNDS: usize = 2_000;

/// The share of the other crates' time that a collection may take. More fails the benchmark.
const MAX_SHARE: f64 = 0.5;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let ours = Reader::cumulative();
    let ours_provider = SdkMeterProvider::builder().with_reader(ours.clone()).build();
    let metrics = init_runtime_metrics(&ours_provider.meter("ours"));

    // The other crates register on the provider that is the global one when they are called.
    let theirs = Reader::cumulative();
    let theirs_provider = SdkMeterProvider::builder().with_reader(theirs.clone()).build();
    opentelemetry::global::set_meter_provider(theirs_provider.clone());
    opentelemetry_instrumentation_tokio::observe_current_runtime();
    opentelemetry_instrumentation_process::init().expect("the rival starts");

    let empty = Reader::cumulative();
    let _empty_provider = SdkMeterProvider::builder().with_reader(empty.clone()).build();

    println!("one collection on this thread, median of {ROUNDS}, the three in turn");
    println!("{:<48} {:>8} {:>8} {:>10} {:>10}", "", "metrics", "points", "us", "allocs");
    let mut rows = [
        Row::new("this crate, default metrics", ours),
        Row::new("instrumentation-tokio + instrumentation-process", theirs),
        Row::new("an empty provider", empty),
    ];
    for _ in 0..ROUNDS {
        rows.iter_mut().for_each(Row::collect);
    }
    let [ours, theirs, _] = rows.each_mut().map(Row::print);
    let share = ours / theirs;
    println!("\n{:<48} {:>8} {:>8} {:>10} {:>10}", "without OpenTelemetry", "metrics", "", "us", "allocs");
    print_reading("snapshot()", || metrics.snapshot().readings().len());
    for name in ["rust.memory.used", "tokio.task.count", "rust.task.count", "process.memory.usage"] {
        print_reading(&format!("read({name:?})"), || usize::from(metrics.read(name).is_some()));
    }
    println!("{share:.2} of the other crates' time, at most {MAX_SHARE}");
    if share > MAX_SHARE { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints the median time and the allocations of a function that returns how many metrics it has read.
fn print_reading(name: &str, read: impl Fn() -> usize) {
    let metrics = read();
    let (mut times, mut allocations) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        let (time, stats) = measure(|| {
            let start = Instant::now();
            black_box(read());
            start.elapsed()
        });
        times.push(time);
        allocations.push(stats.allocations);
    }
    times.sort();
    allocations.sort();
    let median = times[ROUNDS / 2].as_secs_f64() * 1e6;
    println!("{name:<48} {metrics:>8} {:>8} {median:>10.2} {:>10}", "", allocations[ROUNDS / 2]);
}

struct Row {
    name: &'static str,
    reader: Reader,
    metrics: ResourceMetrics,
    times: Vec<Duration>,
    allocations: Vec<u64>,
}

impl Row {
    fn new(name: &'static str, reader: Reader) -> Self {
        let (times, allocations) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
        Row { name, reader, metrics: ResourceMetrics::default(), times, allocations }
    }

    fn collect(&mut self) {
        let ((), stats) = measure(|| {
            let start = Instant::now();
            self.reader.collect(&mut self.metrics).expect("the provider is alive");
            self.times.push(start.elapsed());
        });
        self.allocations.push(stats.allocations);
    }

    /// Prints the row and returns the median of its times, in microseconds.
    fn print(&mut self) -> f64 {
        self.times.sort();
        self.allocations.sort();
        let metrics = self.reader.export();
        let median = self.times[ROUNDS / 2].as_secs_f64() * 1e6;
        println!(
            "{:<48} {:>8} {:>8} {:>10.2} {:>10}",
            self.name,
            metrics.len(),
            metrics.values().map(|metric| metric.points.len()).sum::<usize>(),
            median,
            self.allocations[ROUNDS / 2],
        );
        median
    }
}
