//! The runtimes that are watched, one list for the process, and the one thread that looks at them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;

use super::clock;
use super::probe::spawn;
use super::stall::{Config, Look};
use super::watched::Watched;
use crate::count::task::slow_poll_threshold;
use crate::util::log;
use crate::util::mutex::Mutex;
use crate::util::thread as background;

/// The process's list.
static REGISTRY: Registry = Registry::new(|registry| {
    let thread = thread::Builder::new().name("runtime-metrics".into());
    background::spawn(thread, move || registry.run()).map(drop)
});

/// The wish to have runtimes watched. It holds until it is cancelled or dropped.
pub(crate) struct Subscription {
    registry: &'static Registry,
    id: u64,
}

impl Subscription {
    /// Subscribes. An `interval` of zero wants neither delays nor stalls. The shortest interval and the shortest threshold
    /// of all subscriptions hold. `listener` is notified when runtimes end, and at each tick.
    pub(crate) fn new(interval: Duration, threshold: Duration, listener: Weak<dyn ShutdownListener>) -> Self {
        Self::at(&REGISTRY, interval, threshold, listener)
    }

    fn at(
        registry: &'static Registry,
        interval: Duration,
        threshold: Duration,
        listener: Weak<dyn ShutdownListener>,
    ) -> Self {
        let mut list = registry.lock();
        list.next_member += 1;
        let id = list.next_member;
        list.members.push(Member { id, interval, threshold, listener });
        Subscription { registry, id }
    }

    /// Watches a runtime. A runtime that is watched already stays the same one. If the runtime has shut down, what is
    /// returned is gone.
    pub(crate) fn watch(&self, handle: &Handle) -> Weak<Watched> {
        self.registry.watch(self.id, handle)
    }

    /// Watches no runtime any more, and none from now on.
    pub(crate) fn cancel(&self) {
        self.registry.cancel(self.id);
    }

    /// Returns true if this is the first subscription that watches the runtime. Only the first passes on values that must
    /// be passed on once.
    pub(crate) fn is_primary(&self, runtime: &Watched) -> bool {
        runtime.members().first() == Some(&self.id)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Takes what is left of a runtime.
pub(crate) trait ShutdownListener: Send + Sync {
    /// A runtime shuts down whose first subscription this is. The thread that shuts it down calls this, before the
    /// runtime's handle is dropped.
    fn on_shutdown(&self, runtime: &Arc<Watched>);

    /// The watcher thread has ticked. It calls this without any lock.
    fn on_tick(&self) {}
}

struct Registry {
    list: Mutex<List>,
    changed: Condvar,
    start_thread: fn(&'static Registry) -> io::Result<()>,
}

struct List {
    runtimes: Vec<Arc<Watched>>,
    members: Vec<Member>,
    next_member: u64,
    next_epoch: u64,
    /// The process that the thread runs in: a fork has this list, but not the thread.
    runs_in: Option<u32>,
    /// True if a failure to start the thread has been logged.
    warned: bool,
    /// The number of changes above that matter to the thread.
    changes: u64,
}

/// A subscription, as the list has it.
struct Member {
    id: u64,
    interval: Duration,
    threshold: Duration,
    listener: Weak<dyn ShutdownListener>,
}

impl List {
    fn is_running(&self) -> bool {
        self.runs_in == Some(process::id())
    }

    /// Returns how the thread is to look, or `None` if there is nothing to look at.
    fn config(&self) -> Option<Config> {
        let measuring = || self.members.iter().filter(|member| !member.interval.is_zero());
        let interval = measuring().map(|member| member.interval).min()?;
        let threshold = measuring().map(|member| member.threshold).min()?;
        let config = Config { interval, threshold, slow_poll: slow_poll_threshold() };
        (!self.runtimes.is_empty()).then_some(config)
    }
}

impl Registry {
    const fn new(start_thread: fn(&'static Registry) -> io::Result<()>) -> Self {
        let list = List {
            runtimes: Vec::new(),
            members: Vec::new(),
            next_member: 0,
            next_epoch: 0,
            runs_in: None,
            warned: false,
            changes: 0,
        };
        Registry { list: Mutex::new(list), changed: Condvar::new(), start_thread }
    }

    /// The list is locked for moments only, and never while a handle is dropped or code of the application runs: the
    /// destructor of a probe may need it on any thread.
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock()
    }

    fn notify(&self, list: &mut List) {
        list.changes += 1;
        self.changed.notify_one();
    }

    fn watch(&'static self, member: u64, handle: &Handle) -> Weak<Watched> {
        let mut list = self.lock();
        if !list.members.iter().any(|known| known.id == member) {
            return Weak::new();
        }
        let known = list.runtimes.iter().find(|known| known.handle.id() == handle.id());
        if let Some(known) = known.map(|known| known.add_member(member)) {
            let started = self.ensure_thread(&mut list);
            drop(list);
            started.unwrap_or_else(warn);
            return known;
        }
        list.next_epoch += 1;
        let epoch = list.next_epoch;
        let (runtime, probe) = Watched::new(handle, epoch, member, Box::new(move || self.remove(epoch)));
        let runtime = Arc::new(runtime);
        list.runtimes.push(Arc::clone(&runtime));
        let started = self.ensure_thread(&mut list);
        runtime.is_measured.store(list.is_running(), Relaxed);
        drop(list);
        started.unwrap_or_else(warn);
        // If the runtime has shut down this drops the task at once, which takes the runtime off the list.
        spawn(handle, probe);
        Arc::downgrade(&runtime)
    }

    /// Starts the thread if there is something to look at. The caller logs an error once the list is unlocked.
    fn ensure_thread(&'static self, list: &mut List) -> io::Result<()> {
        self.notify(list);
        if list.is_running() || list.config().is_none() {
            return Ok(());
        }
        match (self.start_thread)(self) {
            Ok(()) => list.runs_in = Some(process::id()),
            Err(error) if !list.warned => {
                list.warned = true;
                return Err(error);
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn remove(&self, epoch: u64) {
        let mut list = self.lock();
        let index = list.runtimes.iter().position(|runtime| runtime.epoch == epoch);
        let Some(runtime) = index.map(|index| list.runtimes.remove(index)) else { return };
        let first = runtime.members().first().copied();
        let first = list.members.iter().find(|member| Some(member.id) == first);
        let listener = first.map(|member| Weak::clone(&member.listener));
        self.notify(&mut list);
        drop(list);
        if let Some(listener) = listener.and_then(|listener| listener.upgrade()) {
            listener.on_shutdown(&runtime);
        }
        // Another thread may be reading it just now, or looking at it.
        runtime.has_ended.store(true, Relaxed);
    }

    fn cancel(&self, member: u64) {
        let mut list = self.lock();
        list.members.retain(|known| known.id != member);
        let mut unwatched = Vec::new();
        list.runtimes.retain(|runtime| {
            let mut members = runtime.members();
            members.retain(|id| *id != member);
            if members.is_empty() {
                unwatched.push(Arc::clone(runtime));
            }
            !members.is_empty()
        });
        self.notify(&mut list);
        drop(list);
        unwatched.iter().for_each(|runtime| runtime.end());
    }

    /// Runs the watcher thread until there is nothing to look at.
    fn run(&self) {
        let mut runtimes = Vec::new();
        let mut listeners = Vec::new();
        let mut next_tick = Duration::ZERO;
        let mut due = clock::now();
        let mut list = self.lock();
        loop {
            let Some(config) = list.config() else {
                list.runs_in = None;
                return;
            };
            let seen = list.changes;
            runtimes.extend(list.runtimes.iter().cloned());
            let now = clock::now();
            let after = now.saturating_add(config.interval);
            next_tick = next_tick.min(after);
            let tick = next_tick <= now;
            if tick {
                next_tick = after;
                listeners.extend(list.members.iter().map(|member| Weak::clone(&member.listener)));
            }
            drop(list);

            let look = Look { now, on_time: now <= due.saturating_add(LATE.max(config.interval / 2)) };
            // The hooks of the runtime's builder, which may panic, run when a task is spawned.
            let look = |runtime: &Arc<Watched>| {
                let look = || runtime.look(look, tick, &config, &runtimes);
                catch_unwind(AssertUnwindSafe(look)).unwrap_or(false)
            };
            let in_doubt = runtimes.iter().fold(false, |doubt, runtime| look(runtime) | doubt);
            runtimes.clear();
            listeners.drain(..).filter_map(|listener| listener.upgrade()).for_each(|listener| {
                let _ = catch_unwind(AssertUnwindSafe(|| listener.on_tick()));
            });

            let pause =
                if in_doubt { config.interval_in_doubt().min(next_tick - now) } else { next_tick - now };
            due = now.saturating_add(pause);
            let pause = pause.saturating_sub(clock::now() - now);
            let waited = self.changed.wait_timeout_while(self.lock(), pause, |list| list.changes == seen);
            list = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The least lateness of the watcher that makes it ignore its last look.
const LATE: Duration = Duration::from_millis(20);

fn warn(error: io::Error) {
    log::warn(
        "could not start the watcher thread; neither delays nor stalls are measured",
        &error.to_string(),
    );
}

#[cfg(test)]
mod tests {
    use tokio::runtime;

    use super::super::stall::Cause;
    use super::*;

    fn no_threads() -> &'static Registry {
        Box::leak(Box::new(Registry::new(|_| Err(io::Error::other("no more threads")))))
    }

    struct Deaf;

    impl ShutdownListener for Deaf {
        fn on_shutdown(&self, _: &Arc<Watched>) {}
    }

    impl Subscription {
        fn alone(registry: &'static Registry, interval: Duration, threshold: Duration) -> Self {
            Self::at(registry, interval, threshold, Weak::<Deaf>::new())
        }
    }

    const INTERVAL: Duration = Duration::from_millis(100);

    fn current_thread() -> runtime::Runtime {
        runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn without_a_thread_runtimes_are_watched_all_the_same() {
        let registry = no_threads();
        let member = Subscription::alone(registry, INTERVAL, INTERVAL);
        let runtime = current_thread();
        let watched = member.watch(runtime.handle()).upgrade().expect("alive");
        assert!(registry.lock().warned);
        assert!(watched.delays().is_none() && watched.stalls(0..1, Cause::Blocked).is_none());
        assert_eq!(watched.probes(), 1);
        drop(runtime);
        assert_eq!(watched.probes(), 0);
        assert!(registry.lock().runtimes.is_empty());
    }

    #[test]
    fn a_runtime_is_watched_once_and_its_first_subscription_is_primary() {
        let registry = no_threads();
        let members = [(); 2].map(|()| Subscription::alone(registry, INTERVAL, INTERVAL));
        let runtime = current_thread();
        let [first, second] =
            [0, 1].map(|index: usize| members[index].watch(runtime.handle()).upgrade().expect("alive"));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(registry.lock().runtimes.len(), 1);
        let is_primary = || [0, 1].map(|index: usize| members[index].is_primary(&first));
        assert_eq!(is_primary(), [true, false]);
        members[0].cancel();
        assert_eq!(is_primary(), [false, true]);
        assert!(members[0].watch(runtime.handle()).upgrade().is_none(), "it is cancelled");
        members[1].cancel();
        assert!(registry.lock().runtimes.is_empty());
        runtime.block_on(async { tokio::task::yield_now().await });
        assert_eq!(first.probes(), 0, "the probe has ended though the runtime has not");
    }

    #[test]
    fn a_runtime_that_is_gone_is_not_watched() {
        let registry = no_threads();
        let member = Subscription::alone(registry, INTERVAL, INTERVAL);
        let runtime = current_thread();
        let handle = runtime.handle().clone();
        drop(runtime);
        assert!(member.watch(&handle).upgrade().is_none());
        assert!(registry.lock().runtimes.is_empty());
    }

    #[test]
    fn the_shortest_interval_and_threshold_count_and_zero_wants_nothing() {
        let registry = no_threads();
        let runtime = current_thread();
        let milliseconds = Duration::from_millis;
        let off = Subscription::alone(registry, Duration::ZERO, milliseconds(1));
        off.watch(runtime.handle());
        assert_eq!(registry.lock().config(), None);
        assert!(!registry.lock().warned, "there is nothing to look at");
        let _slow = Subscription::alone(registry, milliseconds(200), milliseconds(50));
        let fast = Subscription::alone(registry, milliseconds(10), milliseconds(500));
        assert_eq!(
            registry.lock().config().map(|config| (config.interval, config.threshold)),
            Some((milliseconds(10), milliseconds(50)))
        );
        drop(fast);
        assert_eq!(registry.lock().config().map(|config| config.interval), Some(milliseconds(200)));
        off.cancel();
        assert_eq!(registry.lock().config(), None, "no runtime is left");
    }
}
