//! The sources: each a table of rows and a function that takes the sample they read.

pub(crate) mod memory;
pub(crate) mod tokio;

use std::sync::Arc;

use crate::metric::{Level, Metric, Reading, Row, Scope};
use crate::runtime_metrics::Options;

/// Every source of this process, on or off.
pub(crate) fn all(options: &Options, runtimes: &Arc<tokio::Runtimes>) -> Vec<Source> {
    vec![memory::source(options), tokio::source(options, runtimes)]
}

/// Every metric there is, in every build, in the order in which they are reported.
pub fn catalogue() -> Vec<&'static Metric> {
    [memory::TABLE.metrics(), tokio::TABLE.metrics()].concat()
}

/// A source's rows, and what its points have in common.
pub(crate) struct Table<S: 'static> {
    pub(crate) name: &'static str,
    /// The attributes that any of its points may carry, beside the row's own.
    pub(crate) attributes: &'static [&'static str],
    pub(crate) rows: &'static [Row<S>],
}

impl<S> Table<S> {
    pub(crate) fn metrics(&self) -> Vec<&'static Metric> {
        self.rows.iter().map(|row| &row.metric).collect()
    }

    /// A source that can be read. `sampler` hands over one sample for each scope there is at the moment.
    pub(crate) fn on(
        &'static self,
        opt_in: bool,
        mut sampler: impl FnMut(&mut dyn FnMut(&Scope, &S)) + Send + 'static,
    ) -> Source {
        let on = |row: &&'static Row<S>| match row.metric.level() {
            Level::Default => true,
            Level::OptIn => opt_in,
            Level::Unstable => cfg!(tokio_unstable),
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
        }
    }

    /// A source that cannot be read here, and why.
    pub(crate) fn off(&'static self, why: &'static str) -> Source {
        Source { name: self.name, metrics: Vec::new(), state: Err(why), exists: Box::new(|| false) }
    }
}

type Fill = Box<dyn FnMut(&mut [Reading]) + Send>;

/// A table that is bound to what it reads in this process.
pub(crate) struct Source {
    pub(crate) name: &'static str,
    /// The rows that are on.
    pub(crate) metrics: Vec<&'static Metric>,
    /// How to append the points to the readings of `metrics`, or why there are none.
    pub(crate) state: Result<Fill, &'static str>,
    /// Whether there is anything to read yet: no instrument is registered before that.
    pub(crate) exists: Box<dyn Fn() -> bool + Send>,
}

impl Source {
    /// Puts off the registration of the instruments until there is something to read.
    pub(crate) fn when(mut self, exists: impl Fn() -> bool + Send + 'static) -> Self {
        self.exists = Box::new(exists);
        self
    }
}
