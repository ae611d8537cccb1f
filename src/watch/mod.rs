//! The runtimes that are watched, one list for the process, and the one thread that looks at them.
//!
//! On each runtime lives a probe, a task that does nothing but tell when it runs. The thread wakes it from outside at
//! every tick, so that no timer of the runtime is involved, and looks whether the workers make progress. When the
//! runtime shuts down it drops its tasks, and the probe's destructor takes the runtime off the list, with its handle
//! and all that the handle keeps open.
//!
//! Where workers do not sleep from one look to the next, more probes tell which of them are stuck and which are only
//! saturated.

mod clock;
mod probe;
mod pulse;
mod stall;
mod watched;

use crate::util::mutex::Mutex;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::count::task;
use crate::util::log;
use probe::Role;
use stall::Pace;
pub(crate) use watched::Watched;

/// The process's list.
static REGISTRY: Registry = Registry::new(|registry| {
    thread::Builder::new().name("runtime-metrics".into()).spawn(move || registry.run()).map(drop)
});

/// Somebody who wants runtimes to be watched, until it is dropped.
pub(crate) struct Member {
    registry: &'static Registry,
    id: u64,
}

impl Member {
    /// An `interval` of zero wants neither delays nor stalls. Of several members the shortest interval and the
    /// shortest threshold count. `heir` is told of runtimes that end.
    pub(crate) fn new(interval: Duration, threshold: Duration, heir: Weak<dyn Heir>) -> Self {
        Self::of(&REGISTRY, interval, threshold, heir)
    }

    fn of(
        registry: &'static Registry,
        interval: Duration,
        threshold: Duration,
        heir: Weak<dyn Heir>,
    ) -> Self {
        let mut list = registry.lock();
        list.next_member += 1;
        let id = list.next_member;
        list.members.push(Entry { id, pace: Pace { interval, threshold }, heir });
        Member { registry, id }
    }

    /// Watches a runtime. If it is watched already, by whomever, this is the same one. If it is gone, so is what is
    /// returned.
    pub(crate) fn watch(&self, handle: &Handle) -> Weak<Watched> {
        self.registry.watch(self.id, handle)
    }

    /// Watches no runtime any more, and none from now on.
    pub(crate) fn leave(&self) {
        self.registry.leave(self.id);
    }

    /// Whether it is the one who passes on what can be passed on once only: the first of those who watch the
    /// runtime.
    pub(crate) fn passes_on(&self, runtime: &Watched) -> bool {
        runtime.members().first() == Some(&self.id)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Who takes what is left of a runtime.
pub(crate) trait Heir: Send + Sync {
    /// A runtime shuts down that this one is the first to watch. Called on whatever thread does that, before its
    /// handle is dropped.
    fn inherit(&self, runtime: &Arc<Watched>);
}

struct Registry {
    list: Mutex<List>,
    changed: Condvar,
    start_thread: fn(&'static Registry) -> io::Result<()>,
}

struct List {
    runtimes: Vec<Arc<Watched>>,
    members: Vec<Entry>,
    next_member: u64,
    next_epoch: u64,
    /// The process that the thread is in: a fork has this list, but not the thread.
    runs_in: Option<u32>,
    /// Whether it was said that it cannot be started.
    warned: bool,
    /// How often anything above that matters to the thread has changed.
    changes: u64,
}

/// What is known of a member.
struct Entry {
    id: u64,
    pace: Pace,
    heir: Weak<dyn Heir>,
}

impl List {
    fn is_running(&self) -> bool {
        self.runs_in == Some(process::id())
    }

    /// How the thread is to go about it; `None` if there is nothing for it to do.
    fn pace(&self) -> Option<Pace> {
        let wanted = || self.members.iter().map(|member| member.pace).filter(|pace| !pace.interval.is_zero());
        let interval = wanted().map(|pace| pace.interval).min()?;
        let threshold = wanted().map(|pace| pace.threshold).min()?;
        (!self.runtimes.is_empty()).then_some(Pace { interval, threshold })
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

    /// Held for moments only, and never while a handle is dropped or anything else runs that is not ours: a probe's
    /// destructor may need it on any thread.
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock()
    }

    fn change(&self, list: &mut List) {
        list.changes += 1;
        self.changed.notify_one();
    }

    fn watch(&'static self, member: u64, handle: &Handle) -> Weak<Watched> {
        let mut list = self.lock();
        if !list.members.iter().any(|entry| entry.id == member) {
            return Weak::new();
        }
        let known = list.runtimes.iter().find(|known| known.handle.id() == handle.id());
        if let Some(known) = known.map(|known| known.is_joined_by(member)) {
            let started = self.ensure_thread(&mut list);
            drop(list);
            started.unwrap_or_else(warn);
            return known;
        }
        list.next_epoch += 1;
        let epoch = list.next_epoch;
        let runtime = Arc::new(Watched::new(handle, epoch, member));
        let probe = runtime.add_probe(Role::Measures(Box::new(move || self.remove(epoch))));
        list.runtimes.push(Arc::clone(&runtime));
        let started = self.ensure_thread(&mut list);
        runtime.is_measured.store(list.is_running(), Relaxed);
        drop(list);
        started.unwrap_or_else(warn);
        // Where the runtime is gone this drops the task at once, and with it the runtime from the list.
        drop(task::uncounted(|| handle.spawn(probe)));
        Arc::downgrade(&runtime)
    }

    /// Starts the thread where one is wanted. An error is to be told, once the list is unlocked.
    fn ensure_thread(&'static self, list: &mut List) -> io::Result<()> {
        self.change(list);
        if list.is_running() || list.pace().is_none() {
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
        let place = list.runtimes.iter().position(|runtime| runtime.epoch == epoch);
        let Some(runtime) = place.map(|place| list.runtimes.remove(place)) else { return };
        let first = runtime.members().first().copied();
        let heir =
            list.members.iter().find(|entry| Some(entry.id) == first).map(|entry| Weak::clone(&entry.heir));
        self.change(&mut list);
        drop(list);
        if let Some(heir) = heir.and_then(|heir| heir.upgrade()) {
            heir.inherit(&runtime);
        }
        // Somebody may be reading it just now, or looking at it.
        runtime.has_ended.store(true, Relaxed);
    }

    fn leave(&self, member: u64) {
        let mut list = self.lock();
        list.members.retain(|entry| entry.id != member);
        let mut left = Vec::new();
        list.runtimes.retain(|runtime| {
            let mut members = runtime.members();
            members.retain(|id| *id != member);
            if members.is_empty() {
                left.push(Arc::clone(runtime));
            }
            !members.is_empty()
        });
        self.change(&mut list);
        drop(list);
        left.iter().for_each(|runtime| runtime.end());
    }

    /// The thread.
    fn run(&self) {
        let mut runtimes = Vec::new();
        let mut next_tick = Duration::ZERO;
        let mut list = self.lock();
        loop {
            let Some(pace) = list.pace() else {
                list.runs_in = None;
                return;
            };
            let seen = list.changes;
            runtimes.extend(list.runtimes.iter().cloned());
            drop(list);

            let now = clock::now();
            let after = now.saturating_add(pace.interval);
            next_tick = next_tick.min(after);
            let tick = next_tick <= now;
            if tick {
                next_tick = after;
            }
            // The hooks of the runtime's builder, which may panic, run when a probe is spawned.
            let look = |runtime: &Arc<Watched>| {
                catch_unwind(AssertUnwindSafe(|| runtime.look(now, tick, pace))).unwrap_or(false)
            };
            let in_doubt = runtimes.iter().fold(false, |doubt, runtime| look(runtime) | doubt);
            runtimes.clear();

            let pause = if in_doubt { pace.while_in_doubt() } else { next_tick - now };
            let pause = pause.saturating_sub(clock::now() - now);
            let waited = self.changed.wait_timeout_while(self.lock(), pause, |list| list.changes == seen);
            list = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn warn(error: io::Error) {
    log::warn("no thread to watch the runtimes, neither delays nor stalls are measured", &error.to_string());
}

#[cfg(test)]
mod tests {
    use tokio::runtime;

    use super::*;

    fn no_threads() -> &'static Registry {
        Box::leak(Box::new(Registry::new(|_| Err(io::Error::other("no more threads")))))
    }

    struct Nobody;

    impl Heir for Nobody {
        fn inherit(&self, _: &Arc<Watched>) {}
    }

    impl Member {
        fn alone(registry: &'static Registry, interval: Duration, threshold: Duration) -> Self {
            Self::of(registry, interval, threshold, Weak::<Nobody>::new())
        }
    }

    const INTERVAL: Duration = Duration::from_millis(100);

    fn current_thread() -> runtime::Runtime {
        runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn without_a_thread_runtimes_are_watched_all_the_same() {
        let registry = no_threads();
        let member = Member::alone(registry, INTERVAL, INTERVAL);
        let runtime = current_thread();
        let watched = member.watch(runtime.handle()).upgrade().expect("alive");
        assert!(registry.lock().warned);
        assert!(watched.delays().is_none() && watched.stalls(0).is_none());
        assert_eq!(watched.probes(), 1);
        drop(runtime);
        assert_eq!(watched.probes(), 0);
        assert!(registry.lock().runtimes.is_empty());
    }

    #[test]
    fn a_runtime_is_one_however_many_watch_it_and_the_first_passes_on() {
        let registry = no_threads();
        let members = [(); 2].map(|()| Member::alone(registry, INTERVAL, INTERVAL));
        let runtime = current_thread();
        let [first, second] =
            [0, 1].map(|index: usize| members[index].watch(runtime.handle()).upgrade().expect("alive"));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(registry.lock().runtimes.len(), 1);
        let passes_on = || [0, 1].map(|index: usize| members[index].passes_on(&first));
        assert_eq!(passes_on(), [true, false]);
        members[0].leave();
        assert_eq!(passes_on(), [false, true]);
        assert!(members[0].watch(runtime.handle()).upgrade().is_none(), "it has left");
        members[1].leave();
        assert!(registry.lock().runtimes.is_empty());
        runtime.block_on(async { tokio::task::yield_now().await });
        assert_eq!(first.probes(), 0, "the probe has ended though the runtime has not");
    }

    #[test]
    fn a_runtime_that_is_gone_is_not_watched() {
        let registry = no_threads();
        let member = Member::alone(registry, INTERVAL, INTERVAL);
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
        let off = Member::alone(registry, Duration::ZERO, milliseconds(1));
        off.watch(runtime.handle());
        assert_eq!(registry.lock().pace(), None);
        assert!(!registry.lock().warned, "nothing to start a thread for");
        let _slow = Member::alone(registry, milliseconds(200), milliseconds(50));
        let fast = Member::alone(registry, milliseconds(10), milliseconds(500));
        assert_eq!(
            registry.lock().pace(),
            Some(Pace { interval: milliseconds(10), threshold: milliseconds(50) })
        );
        drop(fast);
        assert_eq!(registry.lock().pace().map(|pace| pace.interval), Some(milliseconds(200)));
        off.leave();
        assert_eq!(registry.lock().pace(), None, "no runtime is left");
    }
}
