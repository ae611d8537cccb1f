//! Binds the rows of one source to the function that takes their sample.

use crate::metric::{Availability, Metric};
use crate::snapshot::{Attributes, Reading};
use crate::source::row::{Row, Scope};

/// The metrics of one source, as [`catalogue`](crate::catalogue) lists them.
#[derive(Debug)]
#[non_exhaustive]
pub struct Group {
    /// The name of the source, usually the prefix of its metrics' names.
    pub name: &'static str,
    /// One or more sentences on the meaning and the requirements of the source.
    pub about: &'static str,
    /// The attributes that all points of the source may have, in addition to the metric's own.
    pub attributes: &'static [&'static str],
    /// The metrics, in the order of the catalogue.
    pub metrics: Vec<&'static Metric>,
}

/// The rows of a source and the properties that its points share: see [`Group`].
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

    /// Makes a source that can be read. `sampler` passes one sample for each scope that exists at the moment.
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

    /// Makes a source that cannot be read in this process, with the reason.
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

/// Passes the values of a histogram that are new since the last call, and how often to record each.
type Replay = Box<dyn FnMut(&'static Metric, &mut dyn FnMut(&Attributes, f64, u64)) + Send>;

/// A table that is bound to its sampler in this process.
pub(crate) struct Source {
    pub(crate) name: &'static str,
    /// The metrics that are on.
    pub(crate) metrics: Vec<&'static Metric>,
    /// Appends the points to the readings of `metrics`; or the reason why the source is off.
    pub(crate) state: Result<Fill, &'static str>,
    /// Returns true once there is something to read. The instruments are registered only then.
    pub(crate) exists: Box<dyn Fn() -> bool + Send>,
    /// Passes on the histograms, since OpenTelemetry has no observable histogram.
    pub(crate) replay: Replay,
}

impl Source {
    /// Delays the registration of the instruments until there is something to read.
    pub(crate) fn when(mut self, exists: impl Fn() -> bool + Send + 'static) -> Self {
        self.exists = Box::new(exists);
        self
    }

    /// Sets the function that passes on the histograms.
    pub(crate) fn replayed_by(
        mut self,
        replay: impl FnMut(&'static Metric, &mut dyn FnMut(&Attributes, f64, u64)) + Send + 'static,
    ) -> Self {
        self.replay = Box::new(replay);
        self
    }
}
