//! What the tests of `tokio.*` share: reading snapshots by name and runtime.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::metrics::MeterProvider;
use opentelemetry::metrics::noop::NoopMeterProvider;
use opentelemetry_instrumentation_runtime::{Builder, Histogram, RuntimeMetrics, Value};
use tokio::runtime::{self, Runtime};

/// The watcher's interval by default.
pub const TICK: Duration = Duration::from_millis(100);

pub fn tokio_runtime() -> Runtime {
    runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime starts")
}

/// Runs a function while a task blocks the only worker of a runtime.
pub fn while_blocked(act: impl FnOnce()) {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime starts");
    let (go_on, wait) = mpsc::channel::<()>();
    let (blocked, is_blocked) = mpsc::channel();
    let task = runtime.spawn(async move {
        blocked.send(()).expect("it waits for this");
        wait.recv().expect("it is sent");
    });
    is_blocked.recv().expect("the task runs");
    act();
    go_on.send(()).expect("the task waits for this");
    runtime.block_on(task).expect("the task does not panic");
}

/// Metrics that are read by snapshots alone.
pub fn build(builder: Builder) -> RuntimeMetrics {
    builder.process(false).build(&NoopMeterProvider::new().meter("test"))
}

/// The values of a metric, with those of their attributes, in the order in which they are reported.
pub fn values(metrics: &RuntimeMetrics, name: &str) -> Vec<(Vec<String>, f64)> {
    let snapshot = metrics.snapshot();
    let Some(reading) = snapshot.get(name) else { return Vec::new() };
    let points = reading.points().iter().map(|point| {
        let attributes = point.attributes().iter().map(|(_, value)| value.to_string()).collect();
        (attributes, point.value().as_f64().expect("a number"))
    });
    points.collect()
}

/// The value of a metric's only point.
pub fn value(metrics: &RuntimeMetrics, name: &str) -> Option<f64> {
    match values(metrics, name).as_slice() {
        [] => None,
        [(_, value)] => Some(*value),
        several => panic!("{name}: {several:?}"),
    }
}

/// The distribution that is a metric's only point.
pub fn histogram(metrics: &RuntimeMetrics, name: &str) -> Option<Histogram> {
    match metrics.snapshot().get(name)?.value()? {
        Value::Histogram(histogram) => Some(histogram.clone()),
        other => panic!("{name}: {other:?}"),
    }
}

/// Stalls and seconds spent in them, of the only runtime, whatever their cause.
pub fn stalls(metrics: &RuntimeMetrics) -> (f64, f64) {
    let sum = |name| stalls_of(metrics, name).iter().sum();
    (sum("tokio.worker.stalls"), sum("tokio.worker.stall.time"))
}

/// Stalls of the only runtime: blocked, running, starved.
pub fn stalls_by_cause(metrics: &RuntimeMetrics) -> [f64; 3] {
    stalls_of(metrics, "tokio.worker.stalls")
}

fn stalls_of(metrics: &RuntimeMetrics, name: &str) -> [f64; 3] {
    let values = values(metrics, name);
    ["blocked", "running", "starved"].map(|cause| {
        let of_cause = values.iter().filter(|(attributes, _)| attributes.iter().any(|value| value == cause));
        let of_cause: Vec<f64> = of_cause.map(|(_, value)| *value).collect();
        assert_eq!(of_cause.len(), 1, "{name} {cause}: {values:?}");
        of_cause.iter().sum()
    })
}

/// Waits for a condition, and for what it finds.
#[track_caller]
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for at least this many ticks of the watcher, by the delays of the runtime's probe.
#[track_caller]
pub fn looks(metrics: &RuntimeMetrics, times: u64) {
    let count = || histogram(metrics, "tokio.schedule.delay").map(|delays| delays.counts.iter().sum::<u64>());
    let before = until("a first look", count);
    until("the watcher looks", || count().filter(|now| *now >= before + times));
}
