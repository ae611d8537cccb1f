//! Notifies the program of stalls.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use super::stall::Stall;
use super::stalls::{Key, StallSeen, record, warn};
use crate::util::mutex::Mutex;

type Handler = dyn Fn(&Stall) + Send + Sync;

/// The program's handler of stalls.
#[derive(Clone, Default)]
pub(crate) struct OnStall(Option<Arc<Handler>>);

impl OnStall {
    pub(crate) fn new(handler: impl Fn(&Stall) + Send + Sync + 'static) -> Self {
        OnStall(Some(Arc::new(handler)))
    }
}

impl fmt::Debug for OnStall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a handler" } else { "no handler" })
    }
}

/// Returns the stalls that go on at this moment.
type Present = dyn Fn() -> Vec<StallSeen> + Send + Sync;

/// Looks at the present stalls at each tick of the watcher.
pub(crate) struct Notifier {
    handler: OnStall,
    present: OnceLock<Box<Present>>,
    /// The stalls of the last tick, and how many of their stacks were handed out.
    notified: Mutex<Vec<(Key, u32)>>,
}

impl Notifier {
    pub(crate) fn new(handler: OnStall) -> Self {
        Notifier { handler, present: OnceLock::new(), notified: Mutex::default() }
    }

    /// Says where to look. Before that, there are no stalls.
    pub(crate) fn look_at(&self, present: impl Fn() -> Vec<StallSeen> + Send + Sync + 'static) {
        // It is called once.
        let _ = self.present.set(Box::new(present));
    }

    /// Takes the stacks of new stalls, and hands each new stack out.
    pub(crate) fn tick(&self) {
        let Some(present) = self.present.get() else { return };
        let mut seen = Vec::new();
        for stall in present() {
            let key = Key::of(&stall);
            let (stall, stacks) = record(&stall);
            seen.push((key, stacks));
            if stacks == 0 || self.notified.lock().contains(&(key, stacks)) {
                continue;
            }
            match &self.handler.0 {
                // It belongs to the program, and may panic.
                Some(handler) => drop(catch_unwind(AssertUnwindSafe(|| handler(&stall)))),
                None => warn(&stall),
            }
        }
        *self.notified.lock() = seen;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Instant;

    use super::*;

    #[test]
    fn each_stall_is_handed_out_once_and_a_panic_harms_nothing() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let notifier = Notifier::new(OnStall::new(move |_| {
            counted.fetch_add(1, SeqCst);
            panic!("the handler's own");
        }));
        notifier.tick();
        // A stall is looked at again when it has lasted for 1 s, which a slow test would reach.
        let since = Instant::now() + std::time::Duration::from_secs(3600);
        let stall = move |worker| StallSeen {
            runtime: "main".into(),
            worker,
            cause: "blocked",
            since,
            thread: None,
            candidates: Box::new(Vec::new),
            task: None,
        };
        notifier.look_at(move || vec![stall(7), stall(8)]);
        // Without a thread there is no stack, which is found out after some tries.
        (0..20).for_each(|_| notifier.tick());
        assert_eq!(calls.load(SeqCst), 2);
    }

    /// Counts ticks, since times depend on the machine.
    #[test]
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn the_first_stack_is_taken_at_the_tick_that_finds_the_stall() {
        use std::sync::mpsc;
        use std::thread;
        use std::time::Duration;

        use crate::watch::{ShutdownListener, Subscription, Watched};

        struct Listener(Notifier);

        impl ShutdownListener for Listener {
            fn on_shutdown(&self, _: &Arc<Watched>) {}

            fn on_tick(&self) {
                self.0.tick();
            }
        }

        fn wait_for(what: &str, is_there: impl Fn() -> bool) {
            let start = Instant::now();
            while !is_there() {
                assert!(start.elapsed() < Duration::from_secs(60), "{what}");
                thread::sleep(Duration::from_millis(1));
            }
        }

        let [ticks, found, taken] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
        let (now, first) = (Arc::clone(&ticks), Arc::clone(&taken));
        let notifier = Notifier::new(OnStall::new(move |stall| {
            if stall.stack.is_some() {
                let _ = first.compare_exchange(0, now.load(SeqCst), SeqCst, SeqCst);
            }
        }));
        let listener = Arc::new(Listener(notifier));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let watcher = Arc::downgrade(&listener);
        let (interval, threshold) = (Duration::from_millis(20), Duration::from_millis(50));
        let subscription = Subscription::new(interval, threshold, watcher);
        let watched = subscription.watch(runtime.handle());
        let (now, first) = (Arc::clone(&ticks), Arc::clone(&found));
        listener.0.look_at(move || {
            let tick = now.fetch_add(1, SeqCst) + 1;
            let stalls = watched.upgrade().map(|runtime| runtime.present_stalls()).unwrap_or_default();
            if !stalls.is_empty() {
                let _ = first.compare_exchange(0, tick, SeqCst, SeqCst);
            }
            let seen = stalls.into_iter().map(|stall| StallSeen {
                runtime: "main".into(),
                worker: stall.worker,
                cause: "blocked",
                since: stall.since,
                thread: stall.thread,
                candidates: Box::new(move || stall.candidates()),
                task: None,
            });
            seen.collect()
        });
        // The watcher finds the thread of the worker meanwhile.
        wait_for("ticks", || ticks.load(SeqCst) > 10);
        let (end, ended) = mpsc::channel::<()>();
        let stalled = runtime.spawn(async move {
            let _ = ended.recv();
        });
        wait_for("a stack", || taken.load(SeqCst) > 0);
        drop(end);
        runtime.block_on(stalled).unwrap();
        assert!(found.load(SeqCst) > 0);
        assert_eq!(taken.load(SeqCst), found.load(SeqCst), "the tick of the stack and that of the stall");
    }
}
