//! What the probes of a runtime have told: delays, which workers run, who drives it.

use crate::util::mutex::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, MutexGuard, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::runtime::{self, RuntimeFlavor};

use super::clock;
use crate::snapshot::Histogram;

/// What the probes of one runtime have told. Holds no handle of the runtime, since it is held by tasks on it.
pub(super) struct Pulse {
    /// How many probes are on the runtime.
    pub(super) tasks: AtomicUsize,
    /// How many of them are woken and have not run yet.
    pub(super) pending: AtomicUsize,
    delays: Delays,
    /// When each worker last ran a probe.
    heard: Box<[AtomicU64]>,
    /// Of a current-thread runtime, the thread that last drove it.
    driver: Option<Mutex<Option<Driver>>>,
}

impl Pulse {
    pub(super) fn new(flavor: RuntimeFlavor, workers: usize) -> Self {
        Pulse {
            tasks: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            delays: Delays::default(),
            heard: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            driver: (flavor == RuntimeFlavor::CurrentThread).then(Mutex::default),
        }
    }

    pub(super) fn tasks(&self) -> usize {
        self.tasks.load(Relaxed)
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.load(Relaxed)
    }

    pub(super) fn delays(&self) -> Histogram {
        self.delays.read()
    }

    pub(super) fn heard(&self, worker: usize) -> Duration {
        self.heard.get(worker).map(|nanos| Duration::from_nanos(nanos.load(Relaxed))).unwrap_or_default()
    }

    /// Whether there is a thread that runs the tasks, as far as can be known. A multi-thread runtime has its own.
    /// A current-thread runtime has one while somebody is inside `block_on`, about which Tokio tells nothing: it
    /// counts as driven from the first time that a probe ran until its thread has ended or was met elsewhere.
    pub(super) fn is_driven(&self) -> bool {
        self.driver().is_none_or(|driver| driver.as_ref().is_some_and(Driver::is_alive))
    }

    /// The calling thread drives the runtime.
    pub(super) fn is_driven_here(&self) {
        let here = thread::current().id();
        if let Some(mut driver) = self.driver()
            && driver.as_ref().is_none_or(|driver| driver.thread != here)
        {
            *driver = Driver::here();
        }
    }

    /// The calling thread is outside of every runtime, hence drives this one no longer.
    pub(super) fn is_not_driven_here(&self) {
        let here = thread::current().id();
        if let Some(mut driver) = self.driver() {
            driver.take_if(|driver| driver.thread == here);
        }
    }

    fn driver(&self) -> Option<MutexGuard<'_, Option<Driver>>> {
        self.driver.as_ref().map(|driver| driver.lock())
    }

    /// The probe that measures runs, having been woken at `woken`.
    pub(super) fn is_reached(&self, woken: u64) {
        let now = clock::now();
        // What nobody drove was not late.
        if self.is_driven() {
            self.delays.record(now.saturating_sub(Duration::from_nanos(woken)));
        }
        self.is_driven_here();
        self.worker_runs(now);
    }

    /// A probe runs on the worker of the calling thread. Returns how long ago the last one did.
    pub(super) fn worker_runs(&self, now: Duration) -> Duration {
        let heard = runtime::worker_index().and_then(|worker| self.heard.get(worker));
        let last = heard.map(|heard| heard.swap(clock::nanos(now), Relaxed)).unwrap_or_default();
        now.saturating_sub(Duration::from_nanos(last))
    }
}

/// A thread, and whether it still exists.
struct Driver {
    thread: ThreadId,
    alive: Weak<()>,
}

impl Driver {
    fn here() -> Option<Driver> {
        thread_local!(static ALIVE: Arc<()> = Arc::default());
        let alive = ALIVE.try_with(Arc::downgrade).ok()?;
        Some(Driver { thread: thread::current().id(), alive })
    }

    fn is_alive(&self) -> bool {
        self.alive.strong_count() > 0
    }
}

/// The distribution of the delays, without a lock.
#[derive(Default)]
struct Delays {
    counts: [AtomicU64; Delays::BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Delays {
    const BOUNDS: [f64; 16] = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ];

    fn record(&self, delay: Duration) {
        let bucket = Self::BOUNDS.partition_point(|bound| *bound < delay.as_secs_f64());
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
            self.nanos.fetch_add(clock::nanos(delay), Relaxed);
        }
    }

    fn read(&self) -> Histogram {
        static BOUNDS: LazyLock<Arc<[f64]>> = LazyLock::new(|| Arc::from(Delays::BOUNDS));
        Histogram {
            bounds: Arc::clone(&BOUNDS),
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: Duration::from_nanos(self.nanos.load(Relaxed)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_on_a_bound_is_in_the_bucket_below_it() {
        let delays = Delays::default();
        for micros in [0, 100, 101, 20_000_000] {
            delays.record(Duration::from_micros(micros));
        }
        let read = delays.read();
        assert_eq!((read.counts[0], read.counts[1], read.counts[16]), (2, 1, 1));
        assert!((read.sum - 20.000201).abs() < 1e-9, "{}", read.sum);
    }
}
