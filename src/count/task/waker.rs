//! A waker that notes when it was woken, for `rust.task.scheduled.time`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Wake, Waker};

use super::clock;

/// Stands in for the waker of a task.
pub(crate) struct TimedWaker {
    waker: Waker,
    /// The moment at which the task was first woken since its last poll, in ticks; 0 if it was not.
    woken: AtomicU64,
}

impl TimedWaker {
    /// Returns the waker that stands in for the context's, the same one as long as that does not change.
    pub(crate) fn replace(last: &mut Option<Arc<TimedWaker>>, context: &Context<'_>) -> Waker {
        let timed = match last.take() {
            Some(timed) if timed.waker.will_wake(context.waker()) => timed,
            _ => Arc::new(TimedWaker { waker: context.waker().clone(), woken: AtomicU64::new(0) }),
        };
        Waker::from(Arc::clone(last.insert(timed)))
    }

    /// Returns how many ticks have passed since the wake that the present poll answers.
    pub(crate) fn scheduled_ticks(&self) -> Option<u64> {
        match self.woken.swap(0, Relaxed) {
            0 => None,
            woken => Some(clock::ticks().saturating_sub(woken)),
        }
    }

    fn note_wake(&self) {
        let _ = self.woken.compare_exchange(0, clock::ticks().max(1), Relaxed, Relaxed);
    }
}

impl Wake for TimedWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.note_wake();
        self.waker.wake_by_ref();
    }
}
