//! The tasks of ours that live on a watched runtime: woken from outside, they tell when and where they ran.

use std::mem;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::clock;
use super::pulse::Pulse;

/// The outside end of one task.
#[derive(Default)]
pub(super) struct Probe {
    /// When it was woken, in nanoseconds; 0 while it rests and can be woken.
    woken: AtomicU64,
    /// A task's waker is the same for all its life, so that the first one will do.
    waker: OnceLock<Waker>,
    over: AtomicBool,
}

impl Probe {
    /// A new one and its task, which counts as woken now because a new task is run.
    pub(super) fn new(pulse: &Arc<Pulse>, role: Role) -> (Arc<Probe>, Task) {
        let probe = Arc::new(Probe::default());
        probe.woken.store(clock::nanos(clock::now()), SeqCst);
        pulse.tasks.fetch_add(1, Relaxed);
        pulse.pending.fetch_add(1, Relaxed);
        let task = Task { probe: Arc::clone(&probe), pulse: Arc::clone(pulse), role, stays: false };
        (probe, task)
    }

    /// Wakes the task unless it has yet to run from the last time.
    pub(super) fn wake(&self, pulse: &Pulse, now: Duration) {
        let Some(waker) = self.waker.get() else { return };
        if self.woken.compare_exchange(0, clock::nanos(now), SeqCst, SeqCst).is_ok() {
            pulse.pending.fetch_add(1, Relaxed);
            waker.wake_by_ref();
        }
    }

    /// Ends the task, the next time that it can run.
    pub(super) fn end(&self) {
        self.over.store(true, SeqCst);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

/// What a probe is for.
pub(super) enum Role {
    /// To measure the delay, and to be dropped when the runtime shuts down: Tokio has no other sign of that. This is
    /// called then, and when it has ended.
    Measures(Box<dyn FnOnce() + Send>),
    /// To show that a worker makes progress. It stays with the worker that has run it, in the queue behind its other
    /// tasks, for as long as it has to wait there.
    Accompanies,
}

pub(super) struct Task {
    probe: Arc<Probe>,
    pulse: Arc<Pulse>,
    role: Role,
    stays: bool,
}

impl Task {
    /// A worker that gets round to it again sooner than this publishes often enough without, or has nothing to do.
    const WORTH_STAYING: Duration = Duration::from_millis(1);
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.probe.waker.get_or_init(|| context.waker().clone());
        let woken = self.probe.woken.load(SeqCst);
        if woken != 0 {
            if !self.stays {
                self.pulse.pending.fetch_sub(1, Relaxed);
            }
            self.stays = match self.role {
                Role::Measures(_) => {
                    self.pulse.is_reached(woken);
                    false
                }
                Role::Accompanies => self.pulse.worker_runs(clock::now()) >= Self::WORTH_STAYING,
            };
            if !self.stays {
                self.probe.woken.store(0, SeqCst);
            }
        }
        if self.probe.over.load(SeqCst) {
            return Poll::Ready(());
        }
        if self.stays {
            return pin!(tokio::task::yield_now()).poll(context);
        }
        Poll::Pending
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.pulse.tasks.fetch_sub(1, Relaxed);
        if self.probe.woken.load(SeqCst) != 0 && !self.stays {
            self.pulse.pending.fetch_sub(1, Relaxed);
        }
        if let Role::Measures(when_gone) = mem::replace(&mut self.role, Role::Accompanies) {
            when_gone();
        }
    }
}
