//! A table binds the rows of one source to the function that takes their sample.

use crate::metric::{Availability, Metric};
use crate::snapshot::{Attributes, Reading};
use crate::source::row::{Row, Scope};

/// The metrics of one source.
#[derive(Debug)]
#[non_exhaustive]
pub struct Group {
    /// What the source is called: as a rule the prefix of its metrics.
    pub name: &'static str,
    /// What it needs and what its numbers mean as a whole.
    pub about: &'static str,
    /// The attributes that any of its points may carry, beside the metric's own.
    pub attributes: &'static [&'static str],
    /// Its metrics.
    pub metrics: Vec<&'static Metric>,
}

/// A source's rows, and what its points have in common: see [`Group`].
pub(crate) struct Table<S: 'static> {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) attributes: &'static [&'static str],
    pub(crate) rows: &'static [Row<S>],
}

impl<S> Table<S> {
    pub(crate) fn group(&self) -> Group {
        let metrics = self.rows.iter().map(|row| &row.metric).collect();
        Group { name: self.name, about: self.about, attributes: self.attributes, metrics }
    }

    /// A source that can be read. `sampler` hands over one sample for each scope there is at the moment.
    pub(crate) fn on(
        &'static self,
        opt_in: bool,
        mut sampler: impl FnMut(&mut dyn FnMut(&Scope, &S)) + Send + 'static,
    ) -> Source {
        let on = |row: &&'static Row<S>| match row.metric.availability() {
            Availability::Default => true,
            Availability::OptIn => opt_in,
            Availability::Unstable => cfg!(tokio_unstable),
        };
        let rows: Vec<_> = self.rows.iter().filter(on).collect();
        Source {
            name: self.name,
            metrics: rows.iter().map(|row| &row.metric).collect(),
            state: Ok(Box::new(move |readings| {
                sampler(&mut |scope, sample| {
                    for (row, reading) in rows.iter().zip(readings.iter_mut()) {
                        row.read(sample, scope, &mut reading.points);
                    }
                });
            })),
            exists: Box::new(|| true),
            replay: Box::new(|_, _| {}),
        }
    }

    /// A source that cannot be read here, and why.
    pub(crate) fn off(&'static self, why: &'static str) -> Source {
        Source {
            name: self.name,
            metrics: Vec::new(),
            state: Err(why),
            exists: Box::new(|| false),
            replay: Box::new(|_, _| {}),
        }
    }
}

type Fill = Box<dyn FnMut(&mut [Reading]) + Send>;

/// Of a histogram, hands over the values that are new since the last time, and how often each is to be recorded.
type Replay = Box<dyn FnMut(&'static Metric, &mut dyn FnMut(&Attributes, f64, u64)) + Send>;

/// A table that is bound to what it reads in this process.
pub(crate) struct Source {
    pub(crate) name: &'static str,
    /// The rows that are on.
    pub(crate) metrics: Vec<&'static Metric>,
    /// How to append the points to the readings of `metrics`, or why there are none.
    pub(crate) state: Result<Fill, &'static str>,
    /// Whether there is anything to read yet: no instrument is registered before that.
    pub(crate) exists: Box<dyn Fn() -> bool + Send>,
    /// How to pass on its histograms, since OpenTelemetry knows none that is observed.
    pub(crate) replay: Replay,
}

impl Source {
    /// Puts off the registration of the instruments until there is something to read.
    pub(crate) fn when(mut self, exists: impl Fn() -> bool + Send + 'static) -> Self {
        self.exists = Box::new(exists);
        self
    }

    /// Says how the histograms are passed on.
    pub(crate) fn replayed_by(
        mut self,
        replay: impl FnMut(&'static Metric, &mut dyn FnMut(&Attributes, f64, u64)) + Send + 'static,
    ) -> Self {
        self.replay = Box::new(replay);
        self
    }
}
