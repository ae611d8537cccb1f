//! Spawns tasks by the million, in all ways, and compares the counts with the program's own tally.

use std::collections::BTreeMap;
use std::future::pending;
use std::panic::resume_unwind;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use opentelemetry_instrumentation_runtime::{Snapshot, TaskExt, spawn, spawn_blocking_named};
use support::random::Random;
use support::tasks::{names, points, value};

use crate::soak::{Soak, eventually, more};

/// The tasks that the program has made and awaited.
#[derive(Default)]
pub struct TaskTallies {
    /// Completed after a known number of polls.
    pub plain: TaskTally,
    /// Within a named task.
    pub inner: TaskTally,
    /// Under more names than there is room for.
    pub many: TaskTally,
    pub located: TaskTally,
    pub blocking: TaskTally,
    pub panicked: TaskTally,
    pub cancelled: TaskTally,
    /// On runtimes that come and go: completed, and cancelled by the end of the runtime.
    pub guests: TaskTally,
    pub cut_off: TaskTally,
    pub stalling: TaskTally,
    /// Tasks without a name on a runtime with hooks.
    pub hooked: TaskTally,
}

#[derive(Default)]
pub struct TaskTally {
    pub spawned: AtomicU64,
    pub polls: AtomicU64,
}

impl TaskTally {
    pub fn add(&self, polls: u64) {
        more(&self.spawned);
        self.polls.fetch_add(polls, Relaxed);
    }
}

/// The names, their tallies, and the outcome of all their tasks.
const PLAIN: &str = "soak: plain";
const INNER: &str = "soak: inner";
const BLOCKING: &str = "soak: blocking";
const PANICKED: &str = "soak: panicked";
const CANCELLED: &str = "soak: cancelled";
pub const GUEST: &str = "soak: guest";
pub const CUT_OFF: &str = "soak: cut off";
pub const STALLING: &str = "soak: stalling";

/// More than the default limit of names.
const MANY: u64 = 260;
const BATCH: usize = 100;

/// Yields a number of times, so that it takes one poll more.
pub async fn yields(times: u64) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

pub fn run(soak: &Soak) {
    let mut random = Random(0xD1B5_4A32_D192_ED03);
    while soak.goes_on() {
        soak.main.block_on(batch(soak, &mut random));
        soak.pause(Duration::from_millis(4));
    }
}

async fn batch(soak: &Soak, random: &mut Random) {
    let tally = &soak.tasks;
    let mut ends = Vec::with_capacity(BATCH);
    for _ in 0..BATCH {
        let polls = random.below(4);
        let task = yields(polls);
        ends.push(match random.below(16) {
            0 => {
                tally.located.add(polls + 1);
                spawn(task)
            }
            1 => {
                tally.located.add(polls + 1);
                tokio::spawn(task.with_task_location())
            }
            2 => {
                tally.many.add(polls + 1);
                tokio::spawn(task.with_task_name(format!("soak: many {}", random.below(MANY))))
            }
            3 => {
                tally.blocking.add(1);
                spawn_blocking_named(BLOCKING, || {})
            }
            4 => {
                tally.panicked.add(1);
                // Without the panic hook, which would print it.
                tokio::spawn(async { resume_unwind(Box::new("as it should")) }.with_task_name(PANICKED))
            }
            5 => {
                tally.cancelled.add(0);
                let end = tokio::spawn(pending::<()>().with_task_name(CANCELLED));
                end.abort();
                end
            }
            6 => {
                tally.cancelled.add(0);
                drop(pending::<()>().with_task_name(CANCELLED));
                continue;
            }
            7 => {
                tally.plain.add(polls + 1);
                tally.inner.add(polls + 1);
                tokio::spawn(task.with_task_name(INNER).with_task_name(PLAIN))
            }
            _ => {
                tally.plain.add(polls + 1);
                tokio::spawn(task.with_task_name(PLAIN))
            }
        });
    }
    for end in ends {
        // Those that panic and those that are cancelled end with an error.
        drop(end.await);
    }
    soak.done.tasks.fetch_add(BATCH as u64, Relaxed);
}

/// Spawns tasks without a name on runtimes with the library's hooks.
#[cfg(tokio_unstable)]
pub fn run_hooked(soak: &Soak) {
    use opentelemetry_instrumentation_runtime::task_hooks;
    use tokio::runtime::Builder;

    let mut random = Random(0xA076_1D64_78BD_642F);
    while soak.goes_on() {
        for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
            let runtime = match task_hooks(builder.worker_threads(2)).build() {
                Ok(runtime) => runtime,
                Err(error) => return soak.fail(format!("no runtime: {error}")),
            };
            let work = async {
                let ends: Vec<_> = (0..BATCH)
                    .map(|_| {
                        let polls = random.below(4);
                        soak.tasks.hooked.add(polls + 1);
                        tokio::spawn(yields(polls))
                    })
                    .collect();
                for end in ends {
                    drop(end.await);
                }
            };
            runtime.block_on(work);
            soak.done.tasks.fetch_add(BATCH as u64, Relaxed);
        }
        soak.pause(Duration::from_millis(20));
    }
}

/// Compares all counts with the tallies, once the tasks have ended.
pub fn check(soak: &Soak) {
    let mut last = Vec::new();
    let holds = eventually(|| compare(soak).is_empty());
    if !holds {
        last = compare(soak);
    }
    for message in last {
        soak.fail(message);
    }
}

/// Returns what differs.
fn compare(soak: &Soak) -> Vec<String> {
    let snapshot = soak.metrics.snapshot();
    let tally = &soak.tasks;
    let mut differences = Vec::new();
    let rows = [
        (PLAIN, &tally.plain, "completed", true),
        (INNER, &tally.inner, "completed", true),
        (BLOCKING, &tally.blocking, "completed", true),
        (PANICKED, &tally.panicked, "panicked", true),
        (CANCELLED, &tally.cancelled, "cancelled", false),
        (GUEST, &tally.guests, "completed", true),
        (CUT_OFF, &tally.cut_off, "cancelled", false),
        (STALLING, &tally.stalling, "completed", true),
    ];
    let mut sum = Counts::default();
    for (name, tally, outcome, has_polls) in rows {
        let (spawned, polls) = (tally.spawned.load(Relaxed) as f64, tally.polls.load(Relaxed) as f64);
        let counts = Counts::of(&snapshot, name);
        let outcomes = BTreeMap::from([(outcome.to_owned(), spawned)]);
        let same_polls = !has_polls || counts.polls == polls;
        if spawned > 0.0 && (counts.spawned != spawned || !counts.ended_as(&outcomes) || !same_polls) {
            differences.push(format!("{name}: {spawned} spawned, {polls} polls, but counted: {counts:?}"));
        }
        sum.add(&counts);
    }
    // The others: by location, and under names that share `_OTHER`.
    let mut others = Counts::default();
    names(&snapshot).iter().for_each(|name| others.add(&Counts::of(&snapshot, name)));
    others.subtract(&sum);
    let rest = [&tally.many, &tally.located, &tally.hooked];
    let spawned = rest.iter().map(|tally| tally.spawned.load(Relaxed)).sum::<u64>() as f64;
    let polls = rest.iter().map(|tally| tally.polls.load(Relaxed)).sum::<u64>() as f64;
    let ended: f64 = others.ended.values().sum();
    if (others.spawned, others.polls, ended, others.alive) != (spawned, polls, spawned, 0.0) {
        differences.push(format!("other names: {spawned} spawned, {polls} polls, but counted: {others:?}"));
    }
    differences
}

/// What the library has counted under a name.
#[derive(Debug, Default)]
struct Counts {
    spawned: f64,
    alive: f64,
    polls: f64,
    ended: BTreeMap<String, f64>,
}

impl Counts {
    fn of(snapshot: &Snapshot, name: &str) -> Self {
        let value = |metric| value(snapshot, metric, name).unwrap_or_default();
        let ended = points(snapshot, "ended", name).into_iter().collect();
        Counts { spawned: value("spawned"), alive: value("count"), polls: value("polls"), ended }
    }

    fn ended_as(&self, outcomes: &BTreeMap<String, f64>) -> bool {
        let ended = self.ended.iter().filter(|(_, count)| **count > 0.0);
        self.alive == 0.0 && ended.eq(outcomes.iter())
    }

    fn add(&mut self, other: &Counts) {
        self.combine(other, 1.0);
    }

    fn subtract(&mut self, other: &Counts) {
        self.combine(other, -1.0);
    }

    fn combine(&mut self, other: &Counts, sign: f64) {
        self.spawned += sign * other.spawned;
        self.alive += sign * other.alive;
        self.polls += sign * other.polls;
        for (outcome, count) in &other.ended {
            *self.ended.entry(outcome.clone()).or_default() += sign * count;
        }
    }
}

/// Checks one snapshot of any moment: what was spawned is alive or has ended.
pub fn check_balance(soak: &Soak, snapshot: &Snapshot) {
    for name in names(snapshot) {
        let counts = Counts::of(snapshot, &name);
        let ended: f64 = counts.ended.values().sum();
        soak.check(counts.spawned == counts.alive + ended, || format!("{name}: {counts:?}"));
    }
}
