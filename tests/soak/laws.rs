//! The laws that hold at every moment, and those that hold at the end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opentelemetry_instrumentation_runtime::{Kind, Point, RuntimeMetrics, Snapshot, profile};
use tokio::runtime::Id;

use crate::soak::Soak;
use crate::tally::{self, Tally};
use crate::tasks;

/// Calls of the allocator that threads are in the middle of, counted by the library and not yet by the program.
const IN_PROGRESS: u64 = 500;

/// The counters of the last snapshot, by name and attributes.
#[derive(Default)]
pub struct Laws {
    before: HashMap<String, f64>,
}

impl Laws {
    /// Takes a snapshot and checks the laws of one moment.
    pub fn check(&mut self, soak: &Soak) -> Snapshot {
        let tally_before = tally::read();
        let snapshot = soak.metrics.snapshot();
        let tally_after = tally::read();
        check_memory(soak, &snapshot);
        for (counted, before, after, name) in pairs(&snapshot, &tally_before, &tally_after) {
            soak.check(before <= counted && counted <= after + IN_PROGRESS, || {
                format!("{name}: {counted} counted, and {before} to {after} by the program's tally")
            });
        }
        tasks::check_balance(soak, &snapshot);
        self.check_counters(soak, &snapshot);
        snapshot
    }

    /// Counters never fall. Those of runtimes end with them, and the next one may have the name.
    fn check_counters(&mut self, soak: &Soak, snapshot: &Snapshot) {
        let mut now = HashMap::new();
        for reading in snapshot.readings().iter().filter(|reading| reading.metric().kind() == Kind::Counter) {
            let of_runtime = reading.metric().name().starts_with("tokio.");
            for point in reading.points() {
                let attributes: Vec<_> =
                    point.attributes().iter().map(|(_, value)| value.to_string()).collect();
                if of_runtime && !attributes.iter().any(|value| value == "main") {
                    continue;
                }
                let key = format!("{} {}", reading.metric().name(), attributes.join(" "));
                now.extend(point.value().as_f64().map(|value| (key, value)));
            }
        }
        for (key, value) in &now {
            let before = self.before.get(key).copied().unwrap_or_default();
            soak.check(*value >= before, || format!("{key} has fallen from {before} to {value}"));
        }
        let gone = self.before.keys().find(|key| !now.contains_key(*key));
        soak.check(gone.is_none(), || format!("{gone:?} is not reported any more"));
        self.before = now;
    }
}

/// Allocated minus deallocated is in use.
fn check_memory(soak: &Soak, snapshot: &Snapshot) {
    let value = |name| number(snapshot, name);
    for [used, gained, lost] in [
        ["rust.memory.used", "rust.memory.allocated", "rust.memory.deallocated"],
        ["rust.memory.allocation.count", "rust.memory.allocations", "rust.memory.deallocations"],
    ] {
        let holds = value(used).is_some() && value(used) == difference(value(gained), value(lost));
        soak.check(holds, || {
            format!("{used} is {:?}, and not {:?} minus {:?}", value(used), value(gained), value(lost))
        });
    }
    let highest = value("rust.memory.peak");
    soak.check(highest >= value("rust.memory.used"), || format!("the peak is only {highest:?}"));
}

fn difference(gained: Option<u64>, lost: Option<u64>) -> Option<u64> {
    gained?.checked_sub(lost?)
}

/// Returns a count, added up over its attributes.
pub fn number(snapshot: &Snapshot, name: &str) -> Option<u64> {
    snapshot.get(name)?.points().iter().map(|point| point.value().as_u64()).sum()
}

/// Returns the calls that the library counted, with the program's tallies before and after.
fn pairs(snapshot: &Snapshot, before: &Tally, after: &Tally) -> [(u64, u64, u64, &'static str); 4] {
    let row = |name, tally: fn(&Tally) -> u64| {
        (number(snapshot, name).unwrap_or_default(), tally(before), tally(after), name)
    };
    [
        row("rust.memory.allocations", |tally| tally.allocations),
        row("rust.memory.deallocations", |tally| tally.deallocations),
        row("rust.memory.reallocations", |tally| tally.reallocations),
        row("rust.memory.allocation.failures", |tally| tally.failures),
    ]
}

/// Compares bytes and calls with the tally while hardly any thread allocates: the counts lie between the tallies before and
/// after the reading, which allocates some blocks itself. Returns the width of that interval, in calls.
pub fn check_exactly(soak: &Soak) -> u64 {
    let before = tally::read();
    let snapshot = soak.metrics.snapshot();
    let after = tally::read();
    let count = |name| number(&snapshot, name).unwrap_or_default();
    let bytes = [
        (count("rust.memory.allocated"), before.allocated, after.allocated, "rust.memory.allocated"),
        (count("rust.memory.deallocated"), before.deallocated, after.deallocated, "rust.memory.deallocated"),
    ];
    for (counted, least, most, name) in pairs(&snapshot, &before, &after).into_iter().chain(bytes) {
        soak.check(least <= counted && counted <= most, || {
            format!("{name}: {counted} counted, and {least} to {most} by the program's tally")
        });
    }
    after.allocations - before.allocations
}

/// Returns the stalled seconds of the runtimes of that name by cause.
pub fn stall_times(metrics: &RuntimeMetrics, of: Id) -> [f64; 3] {
    let runtimes = metrics.runtimes();
    let Some(runtime) = runtimes.iter().find(|runtime| runtime.id == of) else { return [0.0; 3] };
    let Some(reading) = metrics.read("tokio.worker.stall.time") else { return [0.0; 3] };
    ["blocked", "running", "starved"].map(|cause| {
        let is_counted = |point: &&Point| {
            let is =
                |key, value: &str| point.attributes().get(key).is_some_and(|own| own.to_string() == value);
            is("tokio.stall.cause", cause) && is("tokio.runtime.name", &runtime.name)
        };
        reading.points().iter().filter(is_counted).filter_map(|point| point.value().as_f64()).sum()
    })
}

/// The profile of stalls has the time of all causes of all runtimes, those that have ended included. The watcher hands the
/// time of a runtime to the profile at its tick, and a runtime that ends takes what came after the last one along.
pub fn check_stalls(soak: &Soak) -> [f64; 3] {
    /// Two ticks, and as long again on a busy machine.
    const UNSEEN: f64 = 0.4;
    let causes = stall_times(&soak.metrics, soak.main.id());
    let seconds = |micros: &AtomicU64| micros.load(Relaxed) as f64 / 1e6;
    let (ended, unseen) = (seconds(&soak.stalled_before_end), seconds(&soak.stalled_unseen));
    let expected = causes.iter().sum::<f64>() + ended;
    let room = UNSEEN * (1 + soak.ended_after_stalls.load(Relaxed)) as f64;
    let stalls = profile::stalls();
    let exact = stalls.exact_total().unwrap_or_default() as f64 / 1e9;
    soak.check((expected - room..=expected + room + unseen).contains(&exact), || {
        format!(
            "{exact:.3} s of stalls, but {expected:.3} s by cause ({causes:?}, {ended:.3} s of ended runtimes, and at most \
             {unseen:.3} s in their end)"
        )
    });
    let shown = stalls.total() as f64 / 1e9;
    soak.check(shown >= exact - 1e-6, || {
        format!("stacks with {shown:.3} s of stalls, but {exact:.3} s in all")
    });
    causes
}
