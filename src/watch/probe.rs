//! The tasks that the watcher puts on a watched runtime. They note when and where they run.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;

use super::clock;
use super::pulse::Pulse;
use crate::count::task::uncounted;

/// Spawns a task of the watcher on a runtime. On a runtime that has shut down this drops the task at once.
pub(super) fn spawn(handle: &Handle, task: impl Future<Output = ()> + Send + 'static) {
    drop(uncounted(|| handle.spawn(task)));
}

/// The outside end of the task that measures delays.
#[derive(Default)]
pub(super) struct Probe {
    /// The moment at which it was woken, in nanoseconds; 0 while it rests and can be woken.
    woken: AtomicU64,
    /// A task keeps its waker for all its life, so that the first one will do.
    waker: OnceLock<Waker>,
    over: AtomicBool,
}

impl Probe {
    /// Returns a probe and its task. It counts as woken now, because a runtime runs a new task. `on_end` is called when
    /// the task has ended: Tokio has no other sign of a runtime's shutdown.
    pub(super) fn new(pulse: &Arc<Pulse>, on_end: Box<dyn FnOnce() + Send>) -> (Arc<Probe>, Task) {
        let probe = Arc::new(Probe::default());
        probe.woken.store(clock::nanos(clock::now()), SeqCst);
        pulse.tasks.fetch_add(1, Relaxed);
        pulse.waiting.fetch_add(1, Relaxed);
        let task = Task { probe: Arc::clone(&probe), pulse: Arc::clone(pulse), on_end: Some(on_end) };
        (probe, task)
    }

    /// Wakes the task unless it has yet to run from the last time.
    pub(super) fn wake(&self, pulse: &Pulse, now: Duration) {
        let Some(waker) = self.waker.get() else { return };
        if self.woken.compare_exchange(0, clock::nanos(now), SeqCst, SeqCst).is_ok() {
            pulse.waiting.fetch_add(1, Relaxed);
            waker.wake_by_ref();
        }
    }

    /// Ends the task as soon as it can run.
    pub(super) fn end(&self) {
        self.over.store(true, SeqCst);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

/// The task that measures delays, and whose destructor reports the end of the runtime.
pub(super) struct Task {
    probe: Arc<Probe>,
    pulse: Arc<Pulse>,
    on_end: Option<Box<dyn FnOnce() + Send>>,
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.probe.waker.get_or_init(|| context.waker().clone());
        let woken = self.probe.woken.load(SeqCst);
        if woken != 0 {
            self.pulse.waiting.fetch_sub(1, Relaxed);
            self.pulse.record_delay(woken);
            self.probe.woken.store(0, SeqCst);
        }
        if self.probe.over.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.pulse.tasks.fetch_sub(1, Relaxed);
        if self.probe.woken.load(SeqCst) != 0 {
            self.pulse.waiting.fetch_sub(1, Relaxed);
        }
        if let Some(on_end) = self.on_end.take() {
            on_end();
        }
    }
}

/// A short task that finds out which thread runs which worker.
///
/// As many run at once as there are workers. Each yields until all threads are known, or a moment has passed, so that the
/// runtime wakes one idle worker after the other to take some of them over. The workers run their other tasks in between.
pub(super) struct Scout {
    pulse: Arc<Pulse>,
    /// The moment at which it gives up, once it has run.
    until: Option<Duration>,
}

impl Scout {
    /// A busy machine takes that long to wake a thread.
    const PATIENCE: Duration = Duration::from_millis(10);

    pub(super) fn new(pulse: &Arc<Pulse>) -> Self {
        pulse.tasks.fetch_add(1, Relaxed);
        pulse.waiting.fetch_add(1, Relaxed);
        Scout { pulse: Arc::clone(pulse), until: None }
    }
}

impl Future for Scout {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let now = clock::now();
        if self.until.is_none() {
            self.pulse.waiting.fetch_sub(1, Relaxed);
        }
        let until = *self.until.get_or_insert(now + Self::PATIENCE);
        self.pulse.note_run(now);
        if now >= until || self.pulse.knows_all_threads() {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Scout {
    fn drop(&mut self) {
        self.pulse.tasks.fetch_sub(1, Relaxed);
        if self.until.is_none() {
            self.pulse.waiting.fetch_sub(1, Relaxed);
        }
    }
}
