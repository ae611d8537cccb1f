//! A collector of scripted sources.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use super::collect::*;
use super::total::Totals;
use crate::snapshot::{AttributeValue, Attributes, CommonAttributes, Value};
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
    assert_eq!(other, [Some(2), Some(2)], "each reader has its own sample");
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
        assert!(state.totals[0].kept().len() <= 2 + 2 * Totals::ENDED);
    }
    let known = |name: i64| state.totals[0].kept().contains(&&Attributes::default().and("name", name));
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
