//! Takes one consistent sample for each collection of each reader.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::metric::{Kind, Metric};
use crate::snapshot::{Attributes, CommonAttributes, Point, Reading, Value};
use crate::source::table::Source;
use crate::total::Total;

/// All sources and their last samples.
pub(crate) struct Collector {
    pub(crate) sources: Vec<Slot>,
    /// The attributes of every series.
    common: Option<CommonAttributes>,
    /// The present collection of each reader's thread.
    collections: Vec<Collection>,
    /// The number of samples taken.
    samples: u64,
    /// The last reported counters of each metric.
    totals: Vec<HashMap<Attributes, Total>>,
    /// The recorders of the registered histograms, by index of the metric.
    recorders: BTreeMap<usize, Recorder>,
    /// The sources that panicked and are not logged yet. The holder of the lock must not log.
    panicked: Vec<&'static str>,
}

/// A metric without an instrument.
pub(crate) struct Unregistered {
    pub(crate) index: usize,
    pub(crate) metric: &'static Metric,
    /// The bounds of the buckets, for a histogram.
    pub(crate) bounds: Option<Arc<[f64]>>,
}

/// A source and the state of its instruments.
pub(crate) struct Slot {
    pub(crate) source: Source,
    pub(crate) registered: bool,
}

/// The collection of one reader. The SDK runs all callbacks of a collection on one thread, in the order of registration.
struct Collection {
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
    const MAX_THREADS: usize = 8;
}

impl Collector {
    pub(crate) fn new(sources: Vec<Source>, common: Option<CommonAttributes>) -> Self {
        let sources: Vec<_> = sources.into_iter().map(|source| Slot { source, registered: false }).collect();
        let totals = sources.iter().flat_map(|slot| &slot.source.metrics).map(|_| HashMap::new()).collect();
        Collector {
            sources,
            common,
            collections: Vec::new(),
            samples: 0,
            totals,
            recorders: BTreeMap::new(),
            panicked: Vec::new(),
        }
    }

    fn metrics(&self) -> impl Iterator<Item = &'static Metric> {
        self.sources.iter().flat_map(|slot| slot.source.metrics.iter().copied())
    }

    /// Returns the metrics whose source has appeared since the last call.
    ///
    /// A histogram is returned once one can be read, since only then its buckets are known.
    pub(crate) fn unregistered(&mut self) -> Vec<Unregistered> {
        let mut new = Vec::new();
        let mut histograms = Vec::new();
        let mut index = 0;
        for slot in &mut self.sources {
            let was_registered = slot.registered;
            slot.registered |= (slot.source.exists)();
            for metric in &slot.source.metrics {
                if metric.kind() == Kind::Histogram {
                    if slot.registered && !self.recorders.contains_key(&index) {
                        histograms.push(index);
                    }
                } else if slot.registered && !was_registered {
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
        for Slot { source, .. } in &mut self.sources {
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

    /// Returns the names of the sources that have panicked since the last call.
    pub(crate) fn panicked(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.panicked)
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
            let count = self.sources.get(source).map_or(0, |slot| slot.source.metrics.len());
            let (own, others) = rest.split_at_mut(count.min(rest.len()));
            rest = others;
            self.fill_from(source, first, own);
            first += count;
        }
    }

    /// Reads one source into the readings of its metrics, of which `first` is the index of the first.
    fn fill_from(&mut self, source: usize, first: usize, readings: &mut [Reading]) {
        let Some(Slot { source, .. }) = self.sources.get_mut(source) else { return };
        readings.iter_mut().for_each(|reading| reading.points.clear());
        if let Ok(fill) = &mut source.state
            && catch_unwind(AssertUnwindSafe(|| fill(readings))).is_err()
        {
            readings.iter_mut().for_each(|reading| reading.points.clear());
            source.state = Err("panicked while it was read");
            self.panicked.push(source.name);
        }
        let totals = self.totals.get_mut(first..).unwrap_or_default();
        for (reading, totals) in readings.iter_mut().zip(totals) {
            if matches!(reading.metric.kind(), Kind::Counter | Kind::Histogram) {
                reading
                    .points
                    .iter_mut()
                    .for_each(|point| Total::make_monotonic(totals, point, self.samples));
                Total::forget(totals, reading.points.len());
            }
            if let Some(common) = &self.common {
                reading.points.iter_mut().for_each(|point| point.attributes.set_common(common));
            }
        }
    }
}

/// Records a value of a histogram a number of times, with attributes. A callback may call it.
pub(crate) type Recorder = Box<dyn Fn(&Attributes, f64, u64) + Send>;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;
    use crate::snapshot::AttributeValue;
    use crate::source::row::{Scope, counter, up_down_counter};
    use crate::source::table::Table;

    /// The next values of a scripted source.
    #[derive(Default)]
    struct Script {
        epoch: AtomicU64,
        value: AtomicU64,
        samples: AtomicU64,
    }

    static TABLE: Table<u64> = Table {
        name: "test",
        about: "",
        attributes: &[],
        rows: &[
            counter("test.a", "{thing}", |value: &u64, to| to.value(*value)),
            counter("test.b", "{thing}", |value: &u64, to| to.value(*value)),
            up_down_counter("test.c", "{thing}", |value: &u64, to| to.value(*value)),
        ],
    };

    fn scripted() -> (Arc<Script>, Collector) {
        let script = Arc::new(Script::default());
        let read = Arc::clone(&script);
        let source = TABLE.on(false, move |visit| {
            read.samples.fetch_add(1, SeqCst);
            let scope = Scope { epoch: read.epoch.load(SeqCst), ..Scope::default() };
            visit(&scope, &read.value.load(SeqCst));
        });
        (script, Collector::new(vec![source], None))
    }

    fn value(state: &mut Collector, index: usize) -> Option<u64> {
        match state.points(index) {
            [point] => point.value.as_u64(),
            _ => None,
        }
    }

    #[test]
    fn a_collection_takes_one_sample_and_the_next_another() {
        let (script, mut state) = scripted();
        for collection in 1..=3 {
            script.value.store(collection * 10, SeqCst);
            assert_eq!(value(&mut state, 0), Some(collection * 10));
            script.value.store(collection * 10 + 5, SeqCst);
            assert_eq!(value(&mut state, 1), Some(collection * 10), "one moment for the whole collection");
            assert_eq!(value(&mut state, 2), Some(collection * 10));
            assert_eq!(script.samples.load(SeqCst), collection);
        }
    }

    #[test]
    fn one_metric_is_read_without_the_other_sources() {
        let (first, state) = scripted();
        let (second, other) = scripted();
        let sources = state.sources.into_iter().chain(other.sources).map(|slot| slot.source).collect();
        let mut state = Collector::new(sources, None);
        first.value.store(3, SeqCst);
        let value = |state: &mut Collector, name| state.read(name)?.value()?.as_u64();
        assert_eq!(value(&mut state, "test.b"), Some(3));
        first.value.store(2, SeqCst);
        assert_eq!(value(&mut state, "test.b"), Some(3), "a counter never falls");
        assert_eq!(value(&mut state, "test.c"), Some(2), "an amount may");
        assert_eq!(value(&mut state, "test.d"), None);
        assert_eq!(second.samples.load(SeqCst), 0, "its source has the same names and is not asked");
    }

    #[test]
    fn common_attributes_are_on_every_point() {
        let (_, state) = scripted();
        let common: CommonAttributes = [("region", AttributeValue::Static("eu"))].into_iter().collect();
        let sources = state.sources.into_iter().map(|slot| slot.source).collect();
        let mut state = Collector::new(sources, Some(common));
        for _ in 0..2 {
            let points: Vec<_> = state.sample().into_iter().flat_map(|reading| reading.points).collect();
            assert_eq!(points.len(), 3);
            assert!(points.iter().all(|point| point.attributes.get("region").is_some()));
        }
    }

    #[test]
    fn a_view_that_drops_the_first_instrument_does_not_freeze_the_rest() {
        let (script, mut state) = scripted();
        for collection in 1..=3 {
            script.value.store(collection, SeqCst);
            assert_eq!(value(&mut state, 1), Some(collection));
            assert_eq!(value(&mut state, 2), Some(collection));
        }
        assert_eq!(script.samples.load(SeqCst), 3);
    }

    #[test]
    fn a_snapshot_in_between_does_not_disturb_a_collection() {
        let (script, mut state) = scripted();
        script.value.store(1, SeqCst);
        assert_eq!(value(&mut state, 0), Some(1));
        script.value.store(2, SeqCst);
        let snapshot = state.sample();
        assert_eq!(snapshot[0].value().and_then(Value::as_u64), Some(2));
        assert_eq!(value(&mut state, 1), Some(1));
    }

    #[test]
    fn a_reader_never_reports_less_than_another_has_reported() {
        let (script, state) = scripted();
        let state = Arc::new(std::sync::Mutex::new(state));
        let read = |index| value(&mut state.lock().unwrap(), index);
        script.value.store(1, SeqCst);
        assert_eq!(read(0), Some(1));
        script.value.store(2, SeqCst);
        let other = thread::scope(|scope| scope.spawn(|| [read(0), read(1)]).join().unwrap());
        assert_eq!(other, [Some(2), Some(2)], "each reader has a sample of its own");
        assert_eq!(read(1), Some(2), "metric 1 was reported as 2 already");
        assert_eq!(read(2), Some(1), "metric 2 was not");
        assert_eq!(script.samples.load(SeqCst), 2);
    }

    #[test]
    fn collections_of_ended_threads_are_dropped() {
        let (_, mut state) = scripted();
        for _ in 0..100 {
            thread::scope(|scope| scope.spawn(|| assert!(!state.points(0).is_empty())).join().unwrap());
        }
        assert!(state.collections.len() <= Collection::MAX_THREADS);
    }

    #[test]
    fn a_counter_never_falls_and_an_amount_may() {
        let (script, mut state) = scripted();
        let mut read = |value: u64| {
            script.value.store(value, SeqCst);
            let readings = state.sample();
            [0, 2].map(|index: usize| readings[index].value().and_then(Value::as_u64))
        };
        assert_eq!(read(10), [Some(10), Some(10)]);
        assert_eq!(read(7), [Some(10), Some(7)]);
        assert_eq!(read(12), [Some(12), Some(12)]);
    }

    #[test]
    fn a_new_incarnation_continues_from_the_last_value() {
        let (script, mut state) = scripted();
        let mut read = |epoch: u64, value: u64| {
            script.epoch.store(epoch, SeqCst);
            script.value.store(value, SeqCst);
            let readings = state.sample();
            [0, 2].map(|index: usize| readings[index].value().and_then(Value::as_u64))
        };
        assert_eq!(read(1, 10), [Some(10), Some(10)]);
        assert_eq!(read(2, 3), [Some(13), Some(3)]);
        assert_eq!(read(2, 4), [Some(14), Some(4)]);
        assert_eq!(read(3, 0), [Some(14), Some(0)]);
        assert_eq!(read(3, u64::MAX), [Some(u64::MAX), Some(u64::MAX)], "saturates");
    }

    #[test]
    fn only_the_last_ended_series_are_kept() {
        let name = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&name);
        let mut state = Collector::new(
            vec![TABLE.on(false, move |visit| {
                for name in [0, read.load(SeqCst)] {
                    let attributes = Attributes::default().and("name", name as i64);
                    visit(&Scope { attributes, epoch: name }, &1);
                }
            })],
            None,
        );
        for next in 1..10_000 {
            name.store(next, SeqCst);
            assert_eq!(state.sample()[0].points().len(), 2);
            assert!(state.totals[0].len() <= 2 + 2 * Total::ENDED);
        }
        let known = |name: i64| state.totals[0].contains_key(&Attributes::default().and("name", name));
        assert!(known(0) && known(9_999) && known(9_999 - 90), "the live series and the last ended ones");
        assert!(!known(1));
    }

    #[test]
    fn a_source_that_panics_is_turned_off_and_others_continue() {
        let panicking = TABLE.on(false, |visit| {
            visit(&Scope::default(), &1);
            panic!("on purpose");
        });
        let (_, healthy) = scripted();
        let mut sources = vec![panicking];
        sources.extend(healthy.sources.into_iter().map(|slot| slot.source));
        let mut state = Collector::new(sources, None);
        let points: Vec<_> = state.sample().iter().map(|reading| reading.points.len()).collect();
        assert_eq!(points, [0, 0, 0, 1, 1, 1]);
        assert_eq!(state.sources[0].source.state.as_ref().err(), Some(&"panicked while it was read"));
        assert!(state.sources[1].source.state.is_ok());
    }
}
