//! One watched runtime: what it shows of itself at each look, and what that comes to.

use crate::util::mutex::Mutex;
use std::collections::HashMap;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, MutexGuard, Weak};
use std::time::Duration;

use tokio::runtime::{self, Handle, RuntimeFlavor, RuntimeMetrics};

use super::clock;
use super::probe::{Probe, Role, Task};
use super::pulse::Pulse;
use super::stall::{Look, Pace, Worker};
use crate::count::task;
use crate::snapshot::Histogram;

/// A runtime that is watched: the same for all who watch it.
pub(crate) struct Watched {
    /// Tells it from all others that ever were.
    pub(crate) epoch: u64,
    pub(crate) handle: Handle,
    pub(crate) metrics: RuntimeMetrics,
    /// Of its histograms, what has been passed on.
    pub(crate) passed_on: Mutex<HashMap<&'static str, Histogram>>,
    pulse: Arc<Pulse>,
    /// The first is always there, the others come when there is doubt about workers.
    probes: Mutex<Vec<Arc<Probe>>>,
    workers: Mutex<Vec<Worker>>,
    backlog: Mutex<Backlog>,
    /// Who watches it, in the order in which they came.
    members: Mutex<Vec<u64>>,
    pub(super) is_measured: AtomicBool,
    /// A fork has what was measured until then, and nobody who goes on.
    process: u32,
    pub(super) has_ended: AtomicBool,
}

impl Watched {
    pub(super) fn new(handle: &Handle, epoch: u64, member: u64) -> Self {
        let metrics = handle.metrics();
        let workers = metrics.num_workers();
        let pulse = Arc::new(Pulse::new(handle.runtime_flavor(), workers));
        let inside = Handle::try_current().is_ok_and(|current| current.id() == handle.id());
        if inside && runtime::worker_index().is_some() {
            pulse.is_driven_here();
        }
        Watched {
            epoch,
            handle: handle.clone(),
            metrics,
            passed_on: Mutex::default(),
            pulse,
            probes: Mutex::default(),
            backlog: Mutex::default(),
            workers: Mutex::new((0..workers).map(|_| Worker::default()).collect()),
            members: Mutex::new(vec![member]),
            is_measured: AtomicBool::new(false),
            process: process::id(),
            has_ended: AtomicBool::new(false),
        }
    }

    /// Whether it has shut down.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    /// How many of its tasks are ours.
    pub(crate) fn probes(&self) -> usize {
        self.pulse.tasks()
    }

    /// How many of its tasks that wait for a worker are ours.
    pub(crate) fn waiting_probes(&self) -> usize {
        self.pulse.pending()
    }

    /// How late the probe ran after it had been woken; `None` if nothing wakes it.
    pub(crate) fn delays(&self) -> Option<Histogram> {
        self.is_measured.load(Relaxed).then(|| self.pulse.delays())
    }

    /// A worker's stalls and the time that it spent in them; `None` if nobody looks.
    pub(crate) fn stalls(&self, worker: usize) -> Option<(u64, Duration)> {
        if !self.is_measured.load(Relaxed) {
            return None;
        }
        self.workers.lock().get(worker).map(|worker| (worker.stalls(), worker.time()))
    }

    /// To be called where it is read: a thread that is in no runtime does not drive this one. Who has left `block_on`
    /// is found out by that alone.
    pub(crate) fn is_read_here(&self) {
        if self.process != process::id() {
            self.is_measured.store(false, Relaxed);
        }
        if runtime::worker_index().is_none() {
            self.pulse.is_not_driven_here();
            if !self.pulse.is_driven() {
                self.nobody_drives(clock::now());
            }
        }
    }

    pub(super) fn is_joined_by(self: &Arc<Self>, member: u64) -> Weak<Self> {
        let mut members = self.members();
        if !members.contains(&member) {
            members.push(member);
        }
        Arc::downgrade(self)
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Vec<u64>> {
        self.members.lock()
    }

    /// One more probe, whose task is to be spawned.
    pub(super) fn add_probe(&self, role: Role) -> Task {
        let (probe, task) = Probe::new(&self.pulse, role);
        self.probes.lock().push(probe);
        task
    }

    pub(super) fn end(&self) {
        self.probes.lock().iter().for_each(|probe| probe.end());
    }

    /// Returns whether there is a worker that may be stuck and may as well be saturated.
    pub(super) fn look(&self, now: Duration, tick: bool, pace: Pace) -> bool {
        self.is_measured.store(true, Relaxed);
        let waiting = self.waiting_probes();
        let tasks = self.metrics.num_alive_tasks().saturating_sub(self.probes());
        let queue = self.metrics.global_queue_depth().saturating_sub(waiting);
        let queued = self.backlog.lock().shrinks(now, tasks, queue, pace) && waiting > 0;
        if tick && let Some(probe) = self.probes.lock().first() {
            probe.wake(&self.pulse, now);
        }
        if !self.pulse.is_driven() {
            self.nobody_drives(now);
            return false;
        }
        let mut workers = self.workers.lock();
        for (index, worker) in workers.iter_mut().enumerate() {
            let look = Look {
                park_unpark: self.metrics.worker_park_unpark_count(index),
                busy: self.metrics.worker_total_busy_duration(index),
            };
            worker.look(now, look, self.pulse.heard(index), queued, pace);
        }
        let [ask, in_doubt] =
            [Worker::is_to_be_asked, Worker::is_in_doubt].map(|state| workers.iter().any(state));
        drop(workers);
        if ask {
            self.ask(now);
        }
        in_doubt
    }

    fn nobody_drives(&self, now: Duration) {
        self.workers.lock().iter_mut().for_each(|worker| worker.is_absent(now));
    }

    /// Lets probes wait for the workers: one that is not stuck runs one of them sooner or later, whichever it is.
    fn ask(&self, now: Duration) {
        // The only worker there is runs the first probe.
        if self.handle.runtime_flavor() == RuntimeFlavor::CurrentThread {
            return;
        }
        // One for each to stay, and as many for those that have more than one.
        let wanted = 2 * self.metrics.num_workers();
        let probes = self.probes.lock().clone();
        probes.iter().skip(1).for_each(|probe| probe.wake(&self.pulse, now));
        for _ in probes.len()..=wanted {
            let probe = self.add_probe(Role::Accompanies);
            drop(task::uncounted(|| self.handle.spawn(probe)));
        }
    }
}

/// How much there is to do for a runtime, and when it was last seen to become less.
#[derive(Default)]
struct Backlog {
    tasks: usize,
    queue: usize,
    shrank: Option<Duration>,
}

impl Backlog {
    /// Whether tasks have ended or left the queue since as long ago as the threshold.
    fn shrinks(&mut self, now: Duration, tasks: usize, queue: usize, pace: Pace) -> bool {
        if tasks < self.tasks || queue < self.queue {
            self.shrank = Some(now);
        }
        (self.tasks, self.queue) = (tasks, queue);
        self.shrank.is_some_and(|shrank| now.saturating_sub(shrank) < pace.threshold)
    }
}
