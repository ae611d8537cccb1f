//! The sources, their last samples, and the collections of the readers.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::total::Totals;
use crate::metric::{Kind, Metric};
use crate::snapshot::{Attributes, CommonAttributes, Point, Reading, Value};
use crate::source::table::Source;
use crate::util::log;

/// All sources and their last samples.
pub(crate) struct Collector {
    pub(crate) sources: Vec<SourceEntry>,
    /// The attributes of every series.
    common: Option<CommonAttributes>,
    /// The present collection of each reader's thread.
    pub(super) collections: Vec<Collection>,
    /// The number of samples so far.
    samples: u64,
    /// The last reported counters of each metric.
    pub(super) totals: Vec<Totals>,
    /// The recorders of the registered histograms, by index of the metric.
    recorders: BTreeMap<usize, Recorder>,
}

/// A metric without an instrument.
pub(crate) struct Unregistered {
    pub(crate) index: usize,
    pub(crate) metric: &'static Metric,
    /// The bounds of the buckets, for a histogram.
    pub(crate) bounds: Option<Arc<[f64]>>,
}

/// A source and the state of its instruments.
pub(crate) struct SourceEntry {
    pub(crate) source: Source,
    pub(crate) registered: bool,
}

/// The collection of one reader. The SDK runs all callbacks of a collection on one thread, in the order of registration.
pub(super) struct Collection {
    thread: ThreadId,
    /// The index of the last metric that was returned.
    index: usize,
    started: Instant,
    sample: u64,
    readings: Vec<Reading>,
}

impl Collection {
    /// The age at which a collection ends. A collection takes well under a millisecond. A request that comes much later
    /// belongs to the next collection, even if a view drops the first metrics.
    const MAX_AGE: Duration = Duration::from_secs(1);
    /// The number of threads whose collections are kept.
    pub(super) const MAX_THREADS: usize = 8;
}

impl Collector {
    pub(crate) fn new(sources: Vec<Source>, common: Option<CommonAttributes>) -> Self {
        let sources: Vec<_> =
            sources.into_iter().map(|source| SourceEntry { source, registered: false }).collect();
        let totals =
            sources.iter().flat_map(|entry| &entry.source.metrics).map(|_| Totals::default()).collect();
        Collector { sources, common, collections: Vec::new(), samples: 0, totals, recorders: BTreeMap::new() }
    }

    fn metrics(&self) -> impl Iterator<Item = &'static Metric> {
        self.sources.iter().flat_map(|entry| entry.source.metrics.iter().copied())
    }

    /// Returns the metrics whose source has appeared since the last call.
    ///
    /// A histogram is returned once one can be read, since only then its buckets are known.
    pub(crate) fn unregistered(&mut self) -> Vec<Unregistered> {
        let mut new = Vec::new();
        let mut histograms = Vec::new();
        let mut index = 0;
        for entry in &mut self.sources {
            let was_registered = entry.registered;
            entry.registered |= (entry.source.exists)();
            for metric in &entry.source.metrics {
                if metric.kind() == Kind::Histogram {
                    if entry.registered && !self.recorders.contains_key(&index) {
                        histograms.push(index);
                    }
                } else if entry.registered && !was_registered {
                    new.push(Unregistered { index, metric, bounds: None });
                }
                index += 1;
            }
        }
        if !histograms.is_empty() {
            let readings = self.sample();
            new.extend(histograms.into_iter().filter_map(|index| {
                let Reading { metric, points } = readings.get(index)?;
                let Value::Histogram(histogram) = points.first()?.value() else { return None };
                Some(Unregistered { index, metric, bounds: Some(Arc::clone(&histogram.bounds)) })
            }));
        }
        new
    }

    /// Sets the recorder of a histogram. It records from the next collection on. A second recorder is ignored.
    pub(crate) fn record_by(&mut self, index: usize, recorder: Recorder) {
        self.recorders.entry(index).or_insert(recorder);
    }

    /// Returns the points of one metric, from the sample of the calling thread's collection.
    pub(crate) fn points(&mut self, index: usize) -> &[Point] {
        let thread = thread::current().id();
        let mut collection = self.collection_of(thread);
        // Only the next collection requests a metric again.
        if index <= collection.index || collection.started.elapsed() > Collection::MAX_AGE {
            self.fill(&mut collection.readings);
            self.replay();
            collection.started = Instant::now();
            collection.sample = self.samples;
        }
        collection.index = index;
        self.collections.push(collection);
        // If another reader got this metric from a newer sample, an older value must not follow.
        self.collections
            .iter()
            .filter(|collection| collection.thread == thread || collection.index >= index)
            .max_by_key(|collection| collection.sample)
            .and_then(|collection| collection.readings.get(index))
            .map(|reading| reading.points.as_slice())
            .unwrap_or_default()
    }

    /// Records the new values of the histograms. Called in a callback, so that they belong to the same collection.
    fn replay(&mut self) {
        let mut first = 0;
        for SourceEntry { source, .. } in &mut self.sources {
            for (index, recorder) in self.recorders.range(first..first + source.metrics.len()) {
                if let (Some(metric), Ok(_)) = (source.metrics.get(index - first), &source.state) {
                    (source.replay)(metric, &mut |attributes, value, times| match &self.common {
                        Some(common) => {
                            let mut attributes = attributes.clone();
                            attributes.set_common(common);
                            recorder(&attributes, value, times);
                        }
                        None => recorder(attributes, value, times),
                    });
                }
            }
            first += source.metrics.len();
        }
    }

    /// Removes and returns the thread's last collection, or a new one. A new one replaces the oldest if there are too
    /// many.
    fn collection_of(&mut self, thread: ThreadId) -> Collection {
        let known = self.collections.iter().position(|collection| collection.thread == thread);
        if let Some(known) = known {
            return self.collections.swap_remove(known);
        }
        if self.collections.len() >= Collection::MAX_THREADS {
            let oldest = self.collections.iter().enumerate().min_by_key(|(_, collection)| collection.sample);
            if let Some((oldest, _)) = oldest {
                self.collections.swap_remove(oldest);
            }
        }
        let readings = self.empty_readings();
        Collection { thread, index: usize::MAX, started: Instant::now(), sample: 0, readings }
    }

    /// Reads every source now, outside any collection.
    pub(crate) fn sample(&mut self) -> Vec<Reading> {
        let mut readings = self.empty_readings();
        self.fill(&mut readings);
        readings
    }

    fn empty_readings(&self) -> Vec<Reading> {
        self.metrics().map(|metric| Reading { metric, points: Vec::new() }).collect()
    }

    /// Reads one metric, and of the sources only the one that it belongs to.
    pub(crate) fn read(&mut self, name: &str) -> Option<Reading> {
        let mut first = 0;
        for source in 0..self.sources.len() {
            let metrics = self.sources.get(source)?.source.metrics.as_slice();
            if let Some(index) = metrics.iter().position(|metric| metric.name() == name) {
                let mut readings: Vec<_> =
                    metrics.iter().map(|metric| Reading { metric, points: Vec::new() }).collect();
                self.samples += 1;
                self.fill_from(source, first, &mut readings);
                return Some(readings.swap_remove(index)).filter(|reading| !reading.points.is_empty());
            }
            first += metrics.len();
        }
        None
    }

    /// Reads every source once.
    fn fill(&mut self, readings: &mut [Reading]) {
        self.samples += 1;
        let mut rest = &mut *readings;
        let mut first = 0;
        for source in 0..self.sources.len() {
            let count = self.sources.get(source).map_or(0, |entry| entry.source.metrics.len());
            let (own, others) = rest.split_at_mut(count.min(rest.len()));
            rest = others;
            self.fill_from(source, first, own);
            first += count;
        }
    }

    /// Reads one source into the readings of its metrics, of which `first` is the index of the first.
    fn fill_from(&mut self, source: usize, first: usize, readings: &mut [Reading]) {
        let Some(SourceEntry { source, .. }) = self.sources.get_mut(source) else { return };
        readings.iter_mut().for_each(|reading| reading.points.clear());
        if let Ok(fill) = &mut source.state
            && catch_unwind(AssertUnwindSafe(|| fill(readings))).is_err()
        {
            readings.iter_mut().for_each(|reading| reading.points.clear());
            source.state = Err("panicked while it was read");
            log::keep_warning("a source of runtime metrics panicked and is turned off", source.name);
        }
        let totals = self.totals.get_mut(first..).unwrap_or_default();
        for (reading, totals) in readings.iter_mut().zip(totals) {
            if matches!(reading.metric.kind(), Kind::Counter | Kind::Histogram) {
                totals.make_monotonic(&mut reading.points, self.samples);
            }
            if let Some(common) = &self.common {
                reading.points.iter_mut().for_each(|point| point.attributes.set_common(common));
            }
        }
    }
}

/// Records a value of a histogram a number of times, with attributes. A callback may call it.
pub(crate) type Recorder = Box<dyn Fn(&Attributes, f64, u64) + Send>;
