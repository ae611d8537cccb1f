//! The runtimes that one `RuntimeMetrics` reports, and their names.

use std::sync::{Arc, MutexGuard, Weak};

use tokio::runtime::{Handle, Id};

use super::runtime::Runtime;
use super::table::{RUNTIME_NAME, TABLE};
use crate::metric::{Kind, Metric};
use crate::settings::Settings;
use crate::snapshot::{Attributes, Histogram, Value};
use crate::source::replay;
use crate::source::row::{Row, Scope};
use crate::util::mutex::Mutex;
use crate::watch::{PresentStall, ShutdownListener, Subscription, Watched};

/// The runtimes that are watched.
pub(crate) struct Runtimes {
    per_worker: bool,
    subscription: Subscription,
    names: Mutex<RuntimeNames>,
    /// The values that histograms of ended runtimes still have to pass on.
    pending: Mutex<Vec<Leftover>>,
    /// Called at each tick of the watcher.
    on_tick: Box<dyn Fn() + Send + Sync>,
}

/// A runtime that [`RuntimeMetrics`](crate::RuntimeMetrics) watches.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WatchedRuntime {
    /// Tokio's id of the runtime.
    pub id: Id,
    /// The name that its points carry as `tokio.runtime.name` once a runtime has a chosen name or more than one is
    /// watched: the chosen one, or a number.
    pub name: Arc<str>,
    /// The number of its worker threads.
    pub workers: usize,
}

impl Runtimes {
    pub(crate) fn new(settings: &Settings, on_tick: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let on_tick = Box::new(on_tick);
        let (interval, threshold) = (settings.probe_interval, settings.stall_threshold);
        Arc::new_cyclic(|own: &Weak<Runtimes>| Runtimes {
            per_worker: settings.per_worker,
            subscription: Subscription::new(interval, threshold, Weak::clone(own) as _),
            names: Mutex::default(),
            pending: Mutex::default(),
            on_tick,
        })
    }

    /// Watches one more runtime, or names one that is watched already and has no chosen name yet.
    pub(crate) fn watch(&self, chosen: String, handle: &Handle) {
        // Without the lock: on a runtime that has shut down the probe's destructor runs at once.
        let Some(runtime) = self.subscription.watch(handle).upgrade() else { return };
        self.names().add(&runtime, &chosen, handle.name().unwrap_or_default());
    }

    /// Stops to watch, for all present and later runtimes.
    pub(crate) fn stop(&self) {
        self.subscription.cancel();
        self.names().list.clear();
    }

    /// Returns the runtimes that have not ended, in the order in which they were added.
    pub(crate) fn list(&self) -> Vec<WatchedRuntime> {
        let names = self.names();
        let alive = names.list.iter().filter_map(|named| Some((named, named.alive()?)));
        let listed = alive.map(|(named, runtime)| WatchedRuntime {
            id: runtime.handle.id(),
            name: Arc::clone(&named.name),
            workers: runtime.metrics.num_workers(),
        });
        listed.collect()
    }

    /// Returns the stalls that go on at this moment, with the names of their runtimes.
    #[allow(dead_code, reason = "the debug page and the handlers of stalls read it")]
    pub(crate) fn present_stalls(&self) -> Vec<(Arc<str>, PresentStall)> {
        let alive: Vec<_> = {
            let names = self.names();
            names.list.iter().filter_map(|named| Some((Arc::clone(&named.name), named.alive()?))).collect()
        };
        let stalls = alive.into_iter().flat_map(|(name, runtime)| {
            runtime.note_read();
            runtime.present_stalls().into_iter().map(move |stall| (Arc::clone(&name), stall))
        });
        stalls.collect()
    }

    /// Returns by how many nanoseconds the stalled time of all runtimes has grown since it was asked for last.
    #[cfg(feature = "profile")]
    pub(crate) fn take_stalled(&self) -> i64 {
        let alive: Vec<_> = self.names().list.iter().filter_map(Named::alive).collect();
        alive.iter().map(|runtime| runtime.take_stalled()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        let mut names = self.names();
        names.remove_ended();
        names.list.is_empty()
    }

    /// Calls `visit` with each runtime that has not ended.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(&Scope, &Runtime)) {
        for (scope, watched) in self.scopes() {
            watched.note_read();
            visit(&scope, &Runtime { watched, per_worker: self.per_worker });
        }
    }

    /// Records what a histogram has counted since the last time, as values and how often each, at most `max` values in
    /// all. Runtimes that an earlier `RuntimeMetrics` watches too are left to that one.
    pub(super) fn replay(
        &self,
        metric: &'static Metric,
        max: u64,
        record: &mut dyn FnMut(&Attributes, f64, u64),
    ) {
        let Some(row) = TABLE.rows.iter().find(|row| std::ptr::eq(&row.metric, metric)) else { return };
        let mut own = self.scopes();
        own.retain(|(_, runtime)| self.subscription.is_primary(runtime));
        let mut pending = self.pending.lock();
        let share = max / (own.len() + pending.len()).max(1) as u64;
        for (scope, watched) in own {
            let mut passed_on = watched.passed_on.lock();
            for (attributes, now) in self.histograms(row, &scope, &watched) {
                let before = passed_on.entry(metric.name()).or_insert_with(|| now.empty());
                for (value, times) in replay::due(&now, before, share) {
                    record(&attributes, value, times);
                }
            }
        }
        pending.retain_mut(|left| {
            if std::ptr::eq(left.metric, metric) {
                for (value, times) in replay::due(&left.all, &mut left.passed_on, share) {
                    record(&left.attributes, value, times);
                }
            }
            left.all.counts != left.passed_on.counts
        });
    }

    /// Returns the histograms that a row reads from a runtime.
    fn histograms(
        &self,
        row: &'static Row<Runtime>,
        scope: &Scope,
        watched: &Arc<Watched>,
    ) -> impl Iterator<Item = (Attributes, Histogram)> {
        let mut points = Vec::new();
        let runtime = Runtime { watched: Arc::clone(watched), per_worker: self.per_worker };
        row.read(&runtime, scope, &mut points);
        points.into_iter().filter_map(|point| match point.value {
            Value::Histogram(histogram) => Some((point.attributes, histogram)),
            _ => None,
        })
    }

    fn scopes(&self) -> Vec<(Scope, Arc<Watched>)> {
        let mut names = self.names();
        names.remove_ended();
        let RuntimeNames { list, shown } = &*names;
        let scope = |named: &Named| {
            let runtime = named.alive()?;
            let attributes = match shown {
                true => Attributes::default().and(RUNTIME_NAME, Arc::clone(&named.name)),
                false => Attributes::default(),
            };
            Some((Scope { attributes, epoch: runtime.epoch }, runtime))
        };
        list.iter().filter_map(scope).collect()
    }

    fn names(&self) -> MutexGuard<'_, RuntimeNames> {
        self.names.lock()
    }
}

impl ShutdownListener for Runtimes {
    fn on_tick(&self) {
        (self.on_tick)();
    }

    /// Keeps what the histograms have counted since the last collection for the next one.
    fn on_shutdown(&self, runtime: &Arc<Watched>) {
        let Some((scope, _)) = self.scopes().into_iter().find(|(_, known)| Arc::ptr_eq(known, runtime))
        else {
            return;
        };
        let mut pending = self.pending.lock();
        let passed_on = runtime.passed_on.lock();
        for row in TABLE.rows.iter().filter(|row| row.metric.kind() == Kind::Histogram) {
            for (attributes, now) in self.histograms(row, &scope, runtime) {
                let rest = match passed_on.get(row.metric.name()) {
                    Some(passed_on) => now.less(passed_on),
                    None => now,
                };
                Leftover::add(&mut pending, &row.metric, attributes, rest);
            }
        }
    }
}

/// The values that a histogram of ended runtimes still has to pass on.
struct Leftover {
    metric: &'static Metric,
    attributes: Attributes,
    all: Histogram,
    passed_on: Histogram,
}

impl Leftover {
    /// The most entries. If no reader collects, none are missed.
    const MAX: usize = 200;

    fn add(pending: &mut Vec<Self>, metric: &'static Metric, attributes: Attributes, rest: Histogram) {
        let same = |left: &&mut Leftover| {
            std::ptr::eq(left.metric, metric)
                && left.attributes == attributes
                && left.all.bounds == rest.bounds
        };
        if let Some(left) = pending.iter_mut().find(same) {
            left.all.add(&rest);
        } else if rest.counts.iter().any(|count| *count > 0) && pending.len() < Self::MAX {
            pending.push(Leftover { metric, attributes, passed_on: rest.empty(), all: rest });
        }
    }
}

#[derive(Default)]
struct RuntimeNames {
    list: Vec<Named>,
    /// True if points carry the name: once two runtimes were watched at the same time, or one with a name.
    shown: bool,
}

struct Named {
    runtime: Weak<Watched>,
    name: Arc<str>,
    /// True if the caller chose it.
    is_chosen: bool,
}

impl Named {
    fn alive(&self) -> Option<Arc<Watched>> {
        self.runtime.upgrade().filter(|runtime| !runtime.has_ended())
    }
}

impl RuntimeNames {
    fn add(&mut self, runtime: &Arc<Watched>, chosen: &str, own: &str) {
        self.remove_ended();
        let known = self.list.iter().position(|known| known.runtime.as_ptr() == Arc::as_ptr(runtime));
        match known {
            Some(known) if chosen.is_empty() || self.list.get(known).is_some_and(|known| known.is_chosen) => {
                return;
            }
            Some(known) => drop(self.list.remove(known)),
            None => {}
        }
        let wanted = if chosen.is_empty() { own } else { chosen };
        self.shown |= !wanted.is_empty() || !self.list.is_empty();
        let name = self.unused(wanted);
        self.list.push(Named { runtime: Arc::downgrade(runtime), name, is_chosen: !chosen.is_empty() });
    }

    /// Returns a name that no other runtime has at the moment. A runtime that has ended needs its name no longer.
    fn unused(&self, wanted: &str) -> Arc<str> {
        let candidate = |number: usize| match (wanted, number) {
            ("", number) => number.to_string(),
            (wanted, 1) => wanted.to_owned(),
            (wanted, number) => format!("{wanted}-{number}"),
        };
        let is_unused = |name: &String| self.list.iter().all(|known| *known.name != **name);
        (1..).map(candidate).find(is_unused).unwrap_or_default().into()
    }

    fn remove_ended(&mut self) {
        self.list.retain(|named| named.alive().is_some());
    }
}
