//! Reads one runtime for the rows of the table.

use std::ops::Range;
use std::sync::Arc;
#[cfg(tokio_unstable)]
use std::time::Duration;

use tokio::runtime::RuntimeFlavor;

use crate::snapshot::{Histogram, Value};
use crate::source::row::Points;
use crate::watch::{Cause, Watched};

pub(super) const WORKER_INDEX: &str = "tokio.worker.index";

/// A runtime, and the form in which it is reported.
pub(crate) struct Runtime {
    pub(super) watched: Arc<Watched>,
    pub(super) per_worker: bool,
}

impl Runtime {
    pub(super) fn workers(&self) -> u64 {
        self.watched.metrics.num_workers() as u64
    }

    /// Returns the number of sleeping workers. A current-thread runtime does not report it.
    pub(super) fn parked(&self) -> Option<u64> {
        (self.watched.handle.runtime_flavor() == RuntimeFlavor::MultiThread).then(|| {
            let parked = |worker: &usize| self.watched.metrics.worker_park_unpark_count(*worker) % 2 == 1;
            (0..self.watched.metrics.num_workers()).filter(parked).count() as u64
        })
    }

    /// Adds one point for each worker, or one for all. If one worker cannot be read, none can.
    pub(super) fn each<T: Into<Value> + std::iter::Sum>(
        &self,
        to: &mut Points<'_, T>,
        read: impl Fn(usize) -> Option<T>,
    ) {
        if self.per_worker {
            let workers = 0..self.watched.metrics.num_workers();
            workers.for_each(|worker| to.at(WORKER_INDEX, worker as i64, read(worker)));
        } else {
            to.value(self.sum(read));
        }
    }

    /// Likewise, for each cause of a stall. `read` returns the sum of some workers.
    pub(super) fn each_cause<T: Into<Value>>(
        &self,
        to: &mut Points<'_, T>,
        read: impl Fn(Range<usize>, Cause) -> Option<T>,
    ) {
        let workers = 0..self.watched.metrics.num_workers();
        for cause in Cause::ALL {
            if self.per_worker {
                workers.clone().for_each(|worker| {
                    to.with_at(cause.name(), WORKER_INDEX, worker as i64, read(worker..worker + 1, cause));
                });
            } else {
                to.with(cause.name(), read(workers.clone(), cause));
            }
        }
    }

    /// Returns the total of all workers.
    pub(super) fn sum<T: std::iter::Sum>(&self, read: impl Fn(usize) -> Option<T>) -> Option<T> {
        (0..self.watched.metrics.num_workers()).map(read).sum()
    }
}

#[cfg(tokio_unstable)]
impl Runtime {
    pub(super) fn poll_durations(&self) -> Option<Histogram> {
        let tokio = &self.watched.metrics;
        tokio.poll_time_histogram_enabled().then(|| {
            self.histogram(
                tokio.poll_time_histogram_num_buckets(),
                |bucket| tokio.poll_time_histogram_bucket_range(bucket),
                |worker, bucket| tokio.poll_time_histogram_bucket_count(worker, bucket),
            )
        })
    }

    pub(super) fn schedule_durations(&self) -> Option<Histogram> {
        let tokio = &self.watched.metrics;
        tokio.schedule_latency_histogram_enabled().then(|| {
            self.histogram(
                tokio.schedule_latency_histogram_num_buckets(),
                |bucket| tokio.schedule_latency_histogram_bucket_range(bucket),
                |worker, bucket| tokio.schedule_latency_histogram_bucket_count(worker, bucket),
            )
        })
    }

    /// The last bucket is open: its values count as its lower bound.
    fn histogram(
        &self,
        buckets: usize,
        range: impl Fn(usize) -> Range<Duration>,
        count: impl Fn(usize, usize) -> u64,
    ) -> Histogram {
        let workers = 0..self.watched.metrics.num_workers();
        let last = buckets.saturating_sub(1);
        let ends = (0..last).map(|bucket| range(bucket).end.as_secs_f64());
        let counts: Vec<u64> =
            (0..buckets).map(|bucket| workers.clone().map(|worker| count(worker, bucket)).sum()).collect();
        let middle = |bucket: usize| match range(bucket) {
            Range { start, .. } if bucket == last => start.as_secs_f64(),
            Range { start, end } => (start.as_secs_f64() + end.as_secs_f64()) / 2.0,
        };
        let sum = counts.iter().enumerate().map(|(bucket, count)| middle(bucket) * *count as f64).sum();
        Histogram { bounds: ends.collect(), counts, sum }
    }
}

#[cfg(not(tokio_unstable))]
impl Runtime {
    pub(super) fn poll_durations(&self) -> Option<Histogram> {
        None
    }

    pub(super) fn schedule_durations(&self) -> Option<Histogram> {
        None
    }
}
