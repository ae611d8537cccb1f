//! Reads the counts of the tasks of one name.

use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::metrics::{MeterProvider, noop::NoopMeterProvider};
use opentelemetry_instrumentation_runtime::{Builder, RuntimeMetrics, Snapshot};

/// Returns metrics that only the test's snapshots read.
pub fn build(builder: Builder) -> RuntimeMetrics {
    builder.process(false).build(&NoopMeterProvider::new().meter("test"))
}

pub fn metrics() -> RuntimeMetrics {
    build(RuntimeMetrics::builder())
}

/// Returns the points of `rust.task.{metric}` of a name, with their outcome.
pub fn points(snapshot: &Snapshot, metric: &str, name: &str) -> Vec<(String, f64)> {
    let Some(reading) = snapshot.get(&format!("rust.task.{metric}")) else { return Vec::new() };
    let text = |value: Option<&opentelemetry_instrumentation_runtime::AttributeValue>| {
        value.map(ToString::to_string).unwrap_or_default()
    };
    let own = reading.points().iter().filter(|point| text(point.attributes().get("rust.task.name")) == name);
    own.map(|point| {
        let outcome = text(point.attributes().get("rust.task.outcome"));
        (outcome, point.value().as_f64().expect("a number"))
    })
    .collect()
}

/// Returns the only point of `rust.task.{metric}` of a name.
pub fn value(snapshot: &Snapshot, metric: &str, name: &str) -> Option<f64> {
    match points(snapshot, metric, name).as_slice() {
        [] => None,
        [(outcome, value)] if outcome.is_empty() => Some(*value),
        points => panic!("{metric} of {name}: {points:?}"),
    }
}

/// Returns all names with a point of `rust.task.count`.
pub fn names(snapshot: &Snapshot) -> Vec<String> {
    let points = snapshot.get("rust.task.count").map(|reading| reading.points()).unwrap_or_default();
    points
        .iter()
        .filter_map(|point| point.attributes().get("rust.task.name"))
        .map(ToString::to_string)
        .collect()
}

/// The numbers of a name's tasks by state and outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fates {
    pub spawned: f64,
    pub completed: f64,
    pub cancelled: f64,
    pub panicked: f64,
    /// Ended with an unknown outcome.
    pub ended: f64,
    pub alive: f64,
}

/// Returns the numbers of one moment, and checks that they add up.
pub fn fates(snapshot: &Snapshot, name: &str) -> Fates {
    let ends = points(snapshot, "ended", name);
    let end = |outcome: &str| {
        ends.iter().find(|(known, _)| known == outcome).map(|(_, count)| *count).unwrap_or_default()
    };
    let fates = Fates {
        spawned: value(snapshot, "spawned", name).expect("the name is known"),
        completed: end("completed"),
        cancelled: end("cancelled"),
        panicked: end("panicked"),
        ended: end(""),
        alive: value(snapshot, "count", name).expect("the name is known"),
    };
    let ended: f64 = ends.iter().map(|(_, count)| count).sum();
    assert_eq!(fates.spawned - ended, fates.alive, "{name}");
    fates
}

/// Lets one test of the program run at a time, since they share state of the process: tasks, signals, timers.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Uses a CPU for this long without an allocation. On a loaded machine it takes longer, since the thread waits for a CPU.
pub fn busy(time: Duration) {
    let start = (Instant::now(), cpu_time());
    let is_over = || match (start.1, cpu_time()) {
        (Some(before), Some(now)) => now.saturating_sub(before) >= time,
        _ => true,
    };
    while start.0.elapsed() < time || !is_over() {
        (0..1000).for_each(|_| std::hint::spin_loop());
    }
}

/// Returns the CPU time of this thread, as far as the system has added it up.
fn cpu_time() -> Option<Duration> {
    let mut text = [0; 64];
    let mut file = std::fs::File::open("/proc/thread-self/schedstat").ok()?;
    let length = file.read(&mut text).ok()?;
    let first = std::str::from_utf8(&text[..length]).ok()?.split_ascii_whitespace().next()?;
    first.parse().ok().map(Duration::from_nanos)
}
