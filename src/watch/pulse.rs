//! Collects what the probes of one runtime note: delays, which worker runs on which thread, and who drives the runtime.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, MutexGuard, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::runtime::{self, RuntimeFlavor};

use super::clock;
use super::thread::current;
use crate::snapshot::Histogram;
use crate::util::mutex::Mutex;

/// The notes of one runtime's probes. It holds no handle of the runtime, since tasks on the runtime hold it.
pub(super) struct Pulse {
    /// The number of the runtime's tasks that are probes.
    pub(super) tasks: AtomicUsize,
    /// The number of them that wait in the queue of all workers.
    pub(super) waiting: AtomicUsize,
    delays: Delays,
    workers: Box<[Notes]>,
    /// The thread that last drove a current-thread runtime.
    driver: Option<Mutex<Option<Driver>>>,
}

/// The notes on one worker.
#[derive(Default)]
struct Notes {
    /// The time of its last probe.
    last_run: AtomicU64,
    /// The number of probes that it ran.
    runs: AtomicU64,
    /// Tokio's count of its parks and unparks, at the last look.
    parks: AtomicU64,
    thread: Mutex<Option<WorkerThread>>,
}

/// The thread that ran a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WorkerThread {
    /// The system's id of it.
    pub(super) id: u32,
    #[cfg_attr(
        not(tokio_unstable),
        allow(dead_code, reason = "stable Tokio does not report a worker's thread")
    )]
    pub(super) std: ThreadId,
}

impl WorkerThread {
    fn current() -> Option<Self> {
        thread_local!(static ID: Option<u32> = current());
        let id = ID.try_with(|id| *id).ok()??;
        Some(WorkerThread { id, std: thread::current().id() })
    }
}

impl Pulse {
    pub(super) fn new(flavor: RuntimeFlavor, workers: usize) -> Self {
        Pulse {
            tasks: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            delays: Delays::default(),
            workers: (0..workers).map(|_| Notes::default()).collect(),
            driver: (flavor == RuntimeFlavor::CurrentThread).then(Mutex::default),
        }
    }

    pub(super) fn tasks(&self) -> usize {
        self.tasks.load(Relaxed)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    pub(super) fn delays(&self) -> Histogram {
        self.delays.read()
    }

    /// Returns when a worker last ran a probe.
    pub(super) fn last_run(&self, worker: usize) -> Duration {
        let nanos = self.workers.get(worker).map(|notes| notes.last_run.load(Relaxed));
        Duration::from_nanos(nanos.unwrap_or_default())
    }

    /// Returns how often a worker ran a probe.
    #[cfg(tokio_unstable)]
    pub(super) fn runs(&self, worker: usize) -> u64 {
        self.workers.get(worker).map(|notes| notes.runs.load(Relaxed)).unwrap_or_default()
    }

    /// Notes Tokio's count of a worker's parks and unparks, at the end of a look.
    pub(super) fn note_parks(&self, worker: usize, parks: u64) {
        if let Some(notes) = self.workers.get(worker) {
            notes.parks.store(parks, Relaxed);
        }
    }

    /// Returns that count at the last look.
    pub(super) fn parks(&self, worker: usize) -> u64 {
        self.workers.get(worker).map(|notes| notes.parks.load(Relaxed)).unwrap_or_default()
    }

    /// Returns the thread that last ran a probe as this worker.
    pub(super) fn thread(&self, worker: usize) -> Option<WorkerThread> {
        *self.workers.get(worker)?.thread.lock()
    }

    /// Forgets the thread of a worker, which has ended or runs the worker no longer.
    pub(super) fn forget_thread(&self, worker: usize) {
        if let Some(notes) = self.workers.get(worker) {
            *notes.thread.lock() = None;
        }
    }

    /// Returns true if the thread of every worker is known, or none can be.
    pub(super) fn knows_all_threads(&self) -> bool {
        self.workers.iter().all(|notes| notes.thread.lock().is_some())
    }

    /// Returns true if a thread runs the tasks, as far as that can be known. A multi-thread runtime has its own
    /// threads. A current-thread runtime has one while a thread is inside `block_on`, which Tokio does not report: it
    /// counts as driven from the first run of a probe until that thread ends or is found elsewhere.
    pub(super) fn is_driven(&self) -> bool {
        self.driver().is_none_or(|driver| driver.as_ref().is_some_and(Driver::is_alive))
    }

    /// Notes that the calling thread drives the runtime.
    pub(super) fn set_driver(&self) {
        let here = thread::current().id();
        if let Some(mut driver) = self.driver()
            && driver.as_ref().is_none_or(|driver| driver.thread != here)
        {
            *driver = Driver::here();
        }
    }

    /// Notes that the calling thread is outside of every runtime, hence drives this one no longer.
    pub(super) fn clear_driver(&self) {
        let here = thread::current().id();
        if let Some(mut driver) = self.driver() {
            driver.take_if(|driver| driver.thread == here);
        }
    }

    fn driver(&self) -> Option<MutexGuard<'_, Option<Driver>>> {
        self.driver.as_ref().map(|driver| driver.lock())
    }

    /// Notes that the probe which was woken at `woken` runs.
    pub(super) fn record_delay(&self, woken: u64) {
        let now = clock::now();
        // A runtime that no thread drove was not late.
        if self.is_driven() {
            self.delays.record(now.saturating_sub(Duration::from_nanos(woken)));
        }
        self.set_driver();
        self.note_run(now);
    }

    /// Notes that a probe runs on the calling thread, and hence which worker that is.
    pub(super) fn note_run(&self, now: Duration) {
        let Some(notes) = runtime::worker_index().and_then(|worker| self.workers.get(worker)) else { return };
        notes.last_run.store(clock::nanos(now), Relaxed);
        notes.runs.fetch_add(1, Relaxed);
        let here = WorkerThread::current();
        let mut thread = notes.thread.lock();
        if *thread != here {
            *thread = here;
        }
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
