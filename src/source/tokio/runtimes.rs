//! Which runtimes one `RuntimeMetrics` reports, and under which names.

use crate::util::mutex::Mutex;
use std::sync::{Arc, MutexGuard, Weak};

use tokio::runtime::Handle;

use super::{Runtime, TABLE};
use crate::metric::{Kind, Metric};
use crate::settings::Settings;
use crate::snapshot::{Attributes, Histogram, Value};
use crate::source::replay;
use crate::source::row::{Row, Scope};
use crate::watch::{Heir, Member, Watched};

pub(crate) const RUNTIME_NAME: &str = "tokio.runtime.name";

/// The runtimes that are watched.
pub(crate) struct Runtimes {
    per_worker: bool,
    member: Member,
    names: Mutex<Names>,
    estate: Mutex<Vec<Inheritance>>,
}

impl Runtimes {
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        Arc::new_cyclic(|own: &Weak<Runtimes>| Runtimes {
            per_worker: settings.per_worker,
            member: Member::new(settings.probe_interval, settings.stall_threshold, Weak::clone(own) as _),
            names: Mutex::default(),
            estate: Mutex::default(),
        })
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
        let mut estate = self.estate.lock();
        let share = most / (own.len() + estate.len()).max(1) as u64;
        for (scope, watched) in own {
            let mut passed_on = watched.passed_on.lock();
            for (attributes, now) in self.histograms(row, &scope, &watched) {
                let before = passed_on.entry(metric.name()).or_insert_with(|| now.empty());
                for (value, times) in replay::due(&now, before, share) {
                    record(&attributes, value, times);
                }
            }
        }
        estate.retain_mut(|left| {
            if std::ptr::eq(left.metric, metric) {
                for (value, times) in replay::due(&left.all, &mut left.passed_on, share) {
                    record(&left.attributes, value, times);
                }
            }
            left.all.counts != left.passed_on.counts
        });
    }

    /// What a row reads of a runtime.
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
        self.names.lock()
    }
}

impl Heir for Runtimes {
    /// Keeps what its histograms have got since the last collection for the next one.
    fn inherit(&self, runtime: &Arc<Watched>) {
        let Some((scope, _)) = self.scopes().into_iter().find(|(_, known)| Arc::ptr_eq(known, runtime))
        else {
            return;
        };
        let mut estate = self.estate.lock();
        let passed_on = runtime.passed_on.lock();
        for row in TABLE.rows.iter().filter(|row| row.metric.kind() == Kind::Histogram) {
            for (attributes, now) in self.histograms(row, &scope, runtime) {
                let rest = match passed_on.get(row.metric.name()) {
                    Some(passed_on) => now.less(passed_on),
                    None => now,
                };
                Inheritance::add(&mut estate, &row.metric, attributes, rest);
            }
        }
    }
}

/// Of a histogram of runtimes that have ended, what is still to be passed on.
struct Inheritance {
    metric: &'static Metric,
    attributes: Attributes,
    all: Histogram,
    passed_on: Histogram,
}

impl Inheritance {
    /// Of how many names. Where nobody collects, nobody misses the rest.
    const MOST: usize = 200;

    fn add(estate: &mut Vec<Self>, metric: &'static Metric, attributes: Attributes, rest: Histogram) {
        let same = |left: &&mut Inheritance| {
            std::ptr::eq(left.metric, metric)
                && left.attributes == attributes
                && left.all.bounds == rest.bounds
        };
        if let Some(left) = estate.iter_mut().find(same) {
            left.all.add(&rest);
        } else if rest.counts.iter().any(|count| *count > 0) && estate.len() < Self::MOST {
            estate.push(Inheritance { metric, attributes, passed_on: rest.empty(), all: rest });
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
