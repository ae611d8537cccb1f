//! One watched runtime: its probes, its workers, and how their stalls add up.

use std::collections::HashMap;
use std::ops::Range;
use std::process;
#[cfg(feature = "profile")]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::{self, Handle, RuntimeFlavor, RuntimeMetrics};

use super::clock;
use super::observe::{Inspect, Observation, Poll, State, ThreadTime};
use super::others::Others;
use super::probe::{Probe, Scout, Task, spawn};
use super::pulse::Pulse;
use super::rest::Rest;
use super::stall::{Cause, Config, Look, Worker};
use super::thread;
use crate::count::task;
use crate::snapshot::Histogram;
use crate::util::mutex::Mutex;

/// A watched runtime: the same for all who watch it.
pub(crate) struct Watched {
    /// A number that no other runtime has or ever had.
    pub(crate) epoch: u64,
    pub(crate) handle: Handle,
    pub(crate) metrics: RuntimeMetrics,
    /// The part of its histograms that has been passed on.
    pub(crate) passed_on: Mutex<HashMap<&'static str, Histogram>>,
    /// The stalled time of its workers that has been passed on, in nanoseconds.
    #[cfg(feature = "profile")]
    stalled_passed_on: AtomicU64,
    pulse: Arc<Pulse>,
    probe: Mutex<Option<Arc<Probe>>>,
    workers: Mutex<Vec<Attended>>,
    scouting: Mutex<Scouting>,
    rest: Mutex<Rest>,
    /// The subscriptions that watch it, in the order in which they came.
    members: Mutex<Vec<u64>>,
    pub(super) is_measured: AtomicBool,
    /// The process that it was made in. A fork has what was measured until then, and no watcher thread.
    process: u32,
    pub(super) has_ended: AtomicBool,
}

/// A stall that goes on at this moment.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "the debug page and the handlers of stalls read it")]
pub(crate) struct PresentStall {
    /// The worker's index.
    pub(crate) worker: usize,
    pub(crate) cause: Cause,
    /// The moment of its beginning, as far as it is known.
    pub(crate) since: Instant,
    /// The system's id of the worker's thread, if it is known.
    pub(crate) thread: Option<u32>,
    runtime: Weak<Watched>,
    /// The name of the task that the worker polled when the stall was noticed, if it has one.
    pub(crate) task: Option<&'static str>,
}

impl PresentStall {
    /// Lists the threads that could run the worker, if its own is not known.
    #[cfg_attr(not(feature = "profile"), allow(dead_code, reason = "the profiles of stalls ask for it"))]
    pub(crate) fn candidates(&self) -> Vec<u32> {
        let runtime = self.runtime.upgrade().filter(|_| self.thread.is_none());
        runtime.map(|runtime| runtime.candidates()).unwrap_or_default()
    }
}

/// A worker and what the watcher keeps beside the rule.
#[derive(Default)]
struct Attended {
    rule: Worker,
    /// The threads that the worker could have moved to, if they are known.
    others: Option<Others>,
    task: Option<&'static str>,
}

/// The schedule of looking for the threads of the workers.
#[derive(Default)]
struct Scouting {
    next: Duration,
    rounds: u32,
}

impl Scouting {
    /// The number of searches at each tick, before the pauses grow.
    const QUICK_ROUNDS: u32 = 5;
    const LONGEST_PAUSE: Duration = Duration::from_secs(60);

    /// Returns true if it is time, and then waits for longer than last time.
    fn take_due(&mut self, now: Duration, interval: Duration) -> bool {
        let due = now >= self.next;
        if due {
            self.rounds = self.rounds.saturating_add(1);
            let doublings = self.rounds.saturating_sub(Self::QUICK_ROUNDS).min(16);
            let pause = interval.saturating_mul(1 << doublings) - interval / 2;
            self.next = now.saturating_add(pause.min(Self::LONGEST_PAUSE));
        }
        due
    }
}

impl Watched {
    /// Returns the runtime and the task of its probe, which is to be spawned on it. `on_end` is called when the runtime
    /// has shut down or is not watched any more.
    pub(super) fn new(
        handle: &Handle,
        epoch: u64,
        member: u64,
        on_end: Box<dyn FnOnce() + Send>,
    ) -> (Self, Task) {
        let metrics = handle.metrics();
        let workers = metrics.num_workers();
        let pulse = Arc::new(Pulse::new(handle.runtime_flavor(), workers));
        let inside = Handle::try_current().is_ok_and(|current| current.id() == handle.id());
        if inside && runtime::worker_index().is_some() {
            pulse.set_driver();
            pulse.note_run(clock::now());
        }
        let (probe, task) = Probe::new(&pulse, on_end);
        let watched = Watched {
            epoch,
            handle: handle.clone(),
            metrics,
            passed_on: Mutex::default(),
            #[cfg(feature = "profile")]
            stalled_passed_on: AtomicU64::new(0),
            pulse,
            probe: Mutex::new(Some(probe)),
            workers: Mutex::new((0..workers).map(|_| Attended::default()).collect()),
            scouting: Mutex::default(),
            rest: Mutex::default(),
            members: Mutex::new(vec![member]),
            is_measured: AtomicBool::new(false),
            process: process::id(),
            has_ended: AtomicBool::new(false),
        };
        (watched, task)
    }

    /// Returns true if the runtime has shut down.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    /// Returns how many of its tasks are the watcher's.
    pub(crate) fn probes(&self) -> usize {
        self.pulse.tasks()
    }

    /// Returns how many of the tasks in the queue that all workers share are the watcher's.
    pub(crate) fn waiting_probes(&self) -> usize {
        self.pulse.waiting()
    }

    /// Returns how late the probe ran after it had been woken, or `None` if no thread wakes it.
    pub(crate) fn delays(&self) -> Option<Histogram> {
        self.is_measured.load(Relaxed).then(|| self.pulse.delays())
    }

    /// Returns how many stalls of a cause some of the workers had and how long they lasted, or `None` if no thread watches
    /// them.
    pub(crate) fn stalls(&self, of: Range<usize>, cause: Cause) -> Option<(u64, Duration)> {
        if !self.is_measured.load(Relaxed) {
            return None;
        }
        let mut workers = self.workers.lock();
        let (mut count, mut time) = (0, Duration::ZERO);
        for (worker, Attended { rule, .. }) in of.clone().zip(workers.get_mut(of)?) {
            if rule.present().is_some() {
                rule.read(clock::now(), self.observe(worker));
            }
            let (stalls, duration) = rule.total(cause);
            count += stalls;
            time += duration;
        }
        Some((count, time))
    }

    /// Returns by how many nanoseconds the stalled time of all workers has grown since the last call. It has shrunk if a stall
    /// that was thought to go on never was.
    #[cfg(feature = "profile")]
    pub(crate) fn take_stalled(&self) -> i64 {
        let of_cause = |cause: &Cause| Some(self.stalls(0..self.metrics.num_workers(), *cause)?.1);
        let now = clock::nanos(Cause::ALL.iter().filter_map(of_cause).sum());
        now.wrapping_sub(self.stalled_passed_on.swap(now, Relaxed)).cast_signed()
    }

    /// Returns the stalls that go on at this moment, at most one for each worker, to within one interval.
    #[allow(dead_code, reason = "the debug page and the handlers of stalls read it")]
    pub(crate) fn present_stalls(self: &Arc<Self>) -> Vec<PresentStall> {
        if !self.is_measured.load(Relaxed) {
            return Vec::new();
        }
        let workers = self.workers.lock();
        let present = workers.iter().enumerate().filter_map(|(index, worker)| {
            let (cause, since) = worker.rule.present()?;
            let thread = self.pulse.thread(index).map(|thread| thread.id);
            Some(PresentStall {
                worker: index,
                cause,
                since: clock::instant(since),
                thread,
                runtime: Arc::downgrade(self),
                task: worker.task,
            })
        });
        present.collect()
    }

    /// Returns the thread of a worker, if that of any is known.
    fn any_thread(&self) -> Option<u32> {
        (0..self.metrics.num_workers()).find_map(|worker| self.pulse.thread(worker)).map(|thread| thread.id)
    }

    /// Returns the threads that could run a worker whose thread is not known.
    fn candidates(&self) -> Vec<u32> {
        let pool = self.any_thread().and_then(|known| thread::pool(known, |_| false)).unwrap_or_default();
        pool.iter().map(|time| time.id).filter(|id| !self.is_awake_on(*id)).collect()
    }

    /// Notes that the calling thread reads this runtime. A thread that is in no runtime does not drive this one: only by
    /// that is it found out that a thread has left `block_on`.
    pub(crate) fn note_read(&self) {
        if self.process != process::id() {
            self.is_measured.store(false, Relaxed);
        }
        if runtime::worker_index().is_none() {
            self.pulse.clear_driver();
            if !self.pulse.is_driven() {
                self.mark_absent();
            }
        }
    }

    pub(super) fn add_member(self: &Arc<Self>, member: u64) -> Weak<Self> {
        let mut members = self.members();
        if !members.contains(&member) {
            members.push(member);
        }
        Arc::downgrade(self)
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Vec<u64>> {
        self.members.lock()
    }

    /// Ends the probe.
    pub(super) fn end(&self) {
        if let Some(probe) = self.probe.lock().take() {
            probe.end();
        }
    }

    /// Looks at the workers once. `all` are the runtimes that are watched, this one included. Returns true if a worker is
    /// to be looked at again soon.
    pub(super) fn look(&self, look: Look, tick: bool, config: &Config, all: &[Arc<Watched>]) -> bool {
        self.is_measured.store(true, Relaxed);
        if tick
            && self.rest.lock().is_probe_due(self.parks_of_sleepers())
            && let Some(probe) = &*self.probe.lock()
        {
            probe.wake(&self.pulse, look.now);
        }
        if !self.pulse.is_driven() {
            self.mark_absent();
            return false;
        }
        let mut workers = self.workers.lock();
        let mut in_doubt = false;
        for (index, worker) in workers.iter_mut().enumerate() {
            let mut inspector = Inspector { runtime: self, index, all, others: &mut worker.others };
            if worker.rule.look(look, self.observe(index), config, &mut inspector) {
                let thread = self.pulse.thread(index);
                worker.task = thread.and_then(|thread| task::count_stall_of_thread(thread.id));
            }
            in_doubt |= worker.rule.is_in_doubt(config);
        }
        for worker in 0..workers.len() {
            self.pulse.note_parks(worker, self.metrics.worker_park_unpark_count(worker));
        }
        drop(workers);
        if tick {
            self.scout(look.now, config);
        }
        in_doubt
    }

    /// Returns Tokio's count of parks and unparks of all workers, or `None` if one of them is awake.
    fn parks_of_sleepers(&self) -> Option<u64> {
        let parks = |worker| self.metrics.worker_park_unpark_count(worker);
        (0..self.metrics.num_workers()).map(parks).map(|parks| (parks % 2 == 1).then_some(parks)).sum()
    }

    fn observe(&self, worker: usize) -> Observation {
        Observation {
            park_unpark: self.metrics.worker_park_unpark_count(worker),
            busy: self.metrics.worker_total_busy_duration(worker),
            #[cfg(tokio_unstable)]
            polls: Some(self.metrics.worker_poll_count(worker).saturating_sub(self.pulse.runs(worker))),
            #[cfg(not(tokio_unstable))]
            polls: None,
            probed: self.pulse.last_run(worker),
        }
    }

    /// Returns true if a worker was last seen on this thread and has been awake since the last look. A worker that sleeps may
    /// have left the thread, which then runs another one.
    fn is_awake_on(&self, thread: u32) -> bool {
        let is_here = |worker: &usize| self.pulse.thread(*worker).is_some_and(|here| here.id == thread);
        let is_awake = |worker| {
            let parks = self.metrics.worker_park_unpark_count(worker);
            parks.is_multiple_of(2) || parks != self.pulse.parks(worker)
        };
        (0..self.metrics.num_workers()).filter(is_here).any(is_awake)
    }

    fn mark_absent(&self) {
        self.workers.lock().iter_mut().for_each(|worker| worker.rule.mark_absent());
    }

    /// Sends tasks out to find the threads of the workers, if any is unknown. The only worker of a runtime is found by the
    /// probe.
    fn scout(&self, now: Duration, config: &Config) {
        let workers = self.metrics.num_workers();
        let mut scouting = self.scouting.lock();
        if workers < 2 || thread::current().is_none() || self.pulse.knows_all_threads() {
            *scouting = Scouting::default();
        } else if scouting.take_due(now, config.interval) {
            drop(scouting);
            (0..workers).for_each(|_| spawn(&self.handle, Scout::new(&self.pulse)));
        }
    }
}

/// The thread of one worker, looked at closely.
struct Inspector<'a> {
    runtime: &'a Watched,
    index: usize,
    all: &'a [Arc<Watched>],
    others: &'a mut Option<Others>,
}

impl Inspector<'_> {
    fn id(&self) -> Option<u32> {
        self.runtime.pulse.thread(self.index).map(|thread| thread.id)
    }

    /// Returns true if Tokio reports the worker's thread, which `time` has compared, or the runtime has but one.
    fn cannot_move(&self) -> bool {
        cfg!(tokio_unstable) || self.runtime.handle.runtime_flavor() == RuntimeFlavor::CurrentThread
    }

    /// Returns the threads of the same pool as this one on which no watched runtime is known to run a worker.
    fn others(&self, id: u32) -> Option<Vec<ThreadTime>> {
        let is_known = |id| self.others.as_ref().is_some_and(|others| others.contains(id));
        let mut others = thread::pool(id, is_known)?;
        others.retain(|other| !self.all.iter().any(|runtime| runtime.is_awake_on(other.id)));
        Some(others)
    }
}

impl Inspect for Inspector<'_> {
    fn time(&mut self) -> Option<ThreadTime> {
        let worker = self.runtime.pulse.thread(self.index)?;
        #[cfg(tokio_unstable)]
        if self.runtime.metrics.worker_thread_id(self.index) != Some(worker.std) {
            self.runtime.pulse.forget_thread(self.index);
            return None;
        }
        let time = thread::cpu_time(worker.id);
        if time.is_none() {
            self.runtime.pulse.forget_thread(self.index);
        }
        time
    }

    fn poll(&mut self) -> Option<Poll> {
        task::current_poll(self.id()?).map(|(name, polls)| (name.index() as u32, polls))
    }

    fn state(&mut self) -> State {
        if let Some(id) = self.id() {
            return thread::state(id);
        }
        // The worker's thread is one of those that are known to run no other worker.
        let known = self.runtime.any_thread();
        let others = known.and_then(|known| self.others(known)).unwrap_or_default();
        let all_wait = others.iter().all(|other| thread::state(other.id) == State::Waiting);
        if all_wait && !others.is_empty() { State::Waiting } else { State::Unknown }
    }

    fn run_delay(&mut self) -> Option<Duration> {
        thread::run_delay(self.id()?)
    }

    fn look_at_others(&mut self, now: Duration, still: Option<Duration>, rest: Duration) {
        if self.cannot_move() {
            return;
        }
        let times = self.id().and_then(|id| self.others(id));
        *self.others = times.map(|times| {
            let mut others = self.others.take().unwrap_or_default();
            others.look(now, times, still, rest, thread::state);
            others
        });
    }

    fn is_unmoved(&mut self) -> bool {
        self.cannot_move() || self.others.as_ref().is_some_and(Others::have_rested)
    }
}
