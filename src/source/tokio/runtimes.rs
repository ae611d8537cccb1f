//! Which runtimes one `RuntimeMetrics` reports, and under which names.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::Handle;

use super::{Runtime, TABLE};
use crate::metric::{Attributes, Metric, Point, Row, Scope, Value};
use crate::replay;
use crate::runtime_metrics::Options;
use crate::watch::{Member, Watched};

pub(crate) const RUNTIME_NAME: &str = "tokio.runtime.name";

/// The runtimes that are watched.
pub(crate) struct Runtimes {
    per_worker: bool,
    member: Member,
    names: Mutex<Names>,
}

impl Runtimes {
    pub(crate) fn new(options: &Options) -> Self {
        Runtimes {
            per_worker: options.per_worker,
            member: Member::new(options.probe_interval, options.stall_threshold),
            names: Mutex::default(),
        }
    }

    /// Watches one more, or gives one that is watched already the name that it has not been given yet.
    pub(crate) fn watch(&self, given: String, handle: &Handle) {
        // Outside the lock: on a runtime that is gone the probe's destructor runs at once.
        let Some(runtime) = self.member.watch(handle).upgrade() else { return };
        self.names().add(&runtime, &given, handle.name().unwrap_or_default());
    }

    pub(crate) fn forget(&self) {
        self.member.leave();
        self.names().list.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        let mut names = self.names();
        names.forget_the_ended();
        names.list.is_empty()
    }

    /// Hands over each runtime that has not ended.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(&Scope, &Runtime)) {
        for (scope, watched) in self.scopes() {
            watched.is_read_here();
            visit(&scope, &Runtime { watched, per_worker: self.per_worker });
        }
    }

    /// Hands over what one of the histograms has got since the last time, of those runtimes that no earlier
    /// `RuntimeMetrics` watches too: as values, how often each, at most `most` in all.
    pub(super) fn pass_on(
        &self,
        metric: &'static Metric,
        most: u64,
        record: &mut dyn FnMut(&Attributes, f64, u64),
    ) {
        let Some(row) = TABLE.rows.iter().find(|row| std::ptr::eq(&row.metric, metric)) else { return };
        let own: Vec<_> =
            self.scopes().into_iter().filter(|(_, runtime)| self.member.passes_on(runtime)).collect();
        let share = most / (own.len() as u64).max(1);
        for (scope, watched) in own {
            let runtime = Runtime { watched, per_worker: self.per_worker };
            runtime.pass_on(row, &scope, share, record);
        }
    }

    fn scopes(&self) -> Vec<(Scope, Arc<Watched>)> {
        let mut names = self.names();
        names.forget_the_ended();
        let Names { list, shown } = &*names;
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

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime {
    fn pass_on(
        &self,
        row: &'static Row<Runtime>,
        scope: &Scope,
        most: u64,
        record: &mut dyn FnMut(&Attributes, f64, u64),
    ) {
        let mut points = Vec::new();
        row.read(self, scope, &mut points);
        let mut passed_on = self.watched.passed_on.lock().unwrap_or_else(PoisonError::into_inner);
        for Point { attributes, value, .. } in points {
            let Value::Histogram(read) = value else { continue };
            let name = row.metric.name();
            if !passed_on.iter().any(|(known, _)| *known == name) {
                passed_on.push((name, read.empty()));
            }
            let Some((_, before)) = passed_on.iter_mut().find(|(known, _)| *known == name) else { continue };
            for (value, times) in replay::due(&read, before, most) {
                record(&attributes, value, times);
            }
        }
    }
}

#[derive(Default)]
struct Names {
    list: Vec<Named>,
    /// Whether points carry the name: not as long as there has been no more than one runtime at once, without a
    /// name of its own.
    shown: bool,
}

struct Named {
    runtime: Weak<Watched>,
    name: Arc<str>,
    /// Whether the caller chose it.
    given: bool,
}

impl Named {
    fn alive(&self) -> Option<Arc<Watched>> {
        self.runtime.upgrade().filter(|runtime| !runtime.has_ended())
    }
}

impl Names {
    fn add(&mut self, runtime: &Arc<Watched>, given: &str, own: &str) {
        self.forget_the_ended();
        let known = self.list.iter().position(|known| known.runtime.as_ptr() == Arc::as_ptr(runtime));
        match known {
            Some(known) if given.is_empty() || self.list.get(known).is_some_and(|known| known.given) => {
                return;
            }
            Some(known) => drop(self.list.remove(known)),
            None => {}
        }
        let wanted = if given.is_empty() { own } else { given };
        self.shown |= !wanted.is_empty() || !self.list.is_empty();
        let name = self.free(wanted);
        self.list.push(Named { runtime: Arc::downgrade(runtime), name, given: !given.is_empty() });
    }

    /// A name that no other runtime has at the moment: those that have ended need theirs no longer.
    fn free(&self, wanted: &str) -> Arc<str> {
        let candidate = |number: usize| match (wanted, number) {
            ("", number) => number.to_string(),
            (wanted, 1) => wanted.to_owned(),
            (wanted, number) => format!("{wanted}-{number}"),
        };
        let is_free = |name: &String| self.list.iter().all(|known| *known.name != **name);
        (1..).map(candidate).find(is_free).unwrap_or_default().into()
    }

    fn forget_the_ended(&mut self) {
        self.list.retain(|named| named.alive().is_some());
    }
}
