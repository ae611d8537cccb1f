//! The state that all activities share: the end of a phase, the failures, and how much was done.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::RuntimeMetrics;
use opentelemetry_instrumentation_runtime::profile::Stall;
use tokio::runtime::Handle;

use crate::tasks::TaskTallies;

/// The state of a run.
pub struct Soak {
    /// The metrics that the laws are read from. They watch the main runtime and those that come and go.
    pub metrics: RuntimeMetrics,
    /// The runtime that lasts as long as the run.
    pub main: Handle,
    pub tasks: TaskTallies,
    pub done: Done,
    /// The stalled time that runtimes had when they were shut down and that they may have had during that, in microseconds,
    /// and how many had some.
    pub stalled_before_end: AtomicU64,
    pub stalled_unseen: AtomicU64,
    pub ended_after_stalls: AtomicU64,
    /// The stall that was noticed last, until it is shown.
    pub last_stall: Mutex<Option<Stall>>,
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
}

/// How often each thing was done.
#[derive(Default)]
pub struct Done {
    pub threads: AtomicU64,
    pub tasks: AtomicU64,
    pub runtimes: AtomicU64,
    pub blocks: AtomicU64,
    pub profiles: AtomicU64,
    pub snapshots: AtomicU64,
    pub requests: AtomicU64,
    pub exporters: AtomicU64,
    pub exports: AtomicU64,
    pub stalls_handled: AtomicU64,
    pub heap_checks: AtomicU64,
}

impl Done {
    pub const NAMES: [&'static str; 11] = [
        "threads",
        "tasks",
        "runtimes",
        "blocks",
        "profiles",
        "snapshots",
        "requests",
        "exporters",
        "exports",
        "stalls seen",
        "heap checks",
    ];

    pub fn values(&self) -> [u64; 11] {
        [
            &self.threads,
            &self.tasks,
            &self.runtimes,
            &self.blocks,
            &self.profiles,
            &self.snapshots,
            &self.requests,
            &self.exporters,
            &self.exports,
            &self.stalls_handled,
            &self.heap_checks,
        ]
        .map(|count| count.load(Relaxed))
    }
}

/// Adds one to a count.
pub fn more(count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
}

impl Soak {
    pub fn new(metrics: RuntimeMetrics, main: Handle) -> Self {
        Soak {
            metrics,
            main,
            tasks: TaskTallies::default(),
            done: Done::default(),
            stalled_before_end: AtomicU64::new(0),
            stalled_unseen: AtomicU64::new(0),
            ended_after_stalls: AtomicU64::new(0),
            last_stall: Mutex::default(),
            stop: AtomicBool::new(false),
            failures: Mutex::default(),
        }
    }

    /// Returns false once the activities are to end.
    pub fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }

    pub fn set_stop(&self, stop: bool) {
        self.stop.store(stop, SeqCst);
    }

    /// Notes that something is not as it should be, which ends the run.
    pub fn fail(&self, message: String) {
        eprintln!("soak: FAILED: {message}");
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        self.set_stop(true);
    }

    pub fn check(&self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.fail(message());
        }
    }

    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits, until the end of the phase at most.
    pub fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        while self.goes_on() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// Waits for a condition. The patience is for a busy machine: it is used up only if the condition never holds.
pub fn eventually(holds: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > Duration::from_secs(60) {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}
