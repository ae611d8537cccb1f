//! Writes a snapshot as a line of JSON, again and again.

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::metric::Kind;
#[cfg(feature = "profile")]
use crate::output::growth::Growth;
use crate::output::json;
use crate::output::memstats::{Line, Pauses, Stats};
#[cfg(feature = "profile")]
use crate::profile::GrownStack;
use crate::runtime_metrics::RuntimeMetrics;
use crate::snapshot::{Point, Reading, Snapshot};
use crate::util::log;
use crate::util::thread as background;

/// Writes a line of JSON every interval, until it is dropped.
///
/// It runs on its own thread, so lines appear even while every runtime of the process is blocked. The first line
/// appears after the first interval. If the writer fails, because a pipe was closed or a disk is full, the monitor logs
/// one warning and ends; the service goes on. A writer that blocks delays only the lines.
///
/// ```no_run
/// use std::time::Duration;
/// use opentelemetry_instrumentation_runtime::{Monitor, init_runtime_metrics};
///
/// # let meter = opentelemetry::global::meter("service");
/// let metrics = init_runtime_metrics(&meter);
/// let _monitor = Monitor::start(&metrics, Duration::from_secs(10), std::io::stderr());
/// ```
#[derive(Debug)]
#[must_use = "dropping it ends the lines"]
pub struct Monitor {
    /// Never sends: dropping it wakes and ends the thread that holds the receiver.
    _running: mpsc::Sender<Infallible>,
}

impl Monitor {
    /// Starts a monitor whose lines are whole snapshots.
    ///
    /// A line holds the time as `time`, then each metric by its name. The growth per second of a counter since the last
    /// line stands under the metric's name with `/s`. Attributes make nested objects whose keys are the attribute's
    /// values. Every `tokio.*` metric has a level for the runtime; the only runtime of a process is called `1` if it has
    /// no name:
    ///
    /// ```json
    /// {"time":"2026-11-23T20:36:35.123Z","process.cpu.time":{"system":0.1,"user":2.5},"tokio.task.count":{"1":7},"process.cpu.time/s":{"system":0.0,"user":0.9}}
    /// ```
    ///
    /// An interval shorter than one millisecond becomes one millisecond.
    pub fn start(metrics: &RuntimeMetrics, interval: Duration, writer: impl Write + Send + 'static) -> Self {
        Self::spawn(metrics, interval, writer, |last, now, line| {
            serde_json::to_writer(line, &WithRates { last, now })
        })
    }

    /// Starts a monitor as [`start`](Self::start) does. Each `every`-th line also has the five stacks whose memory has grown
    /// most since the stacks before, as `heap.growth`:
    ///
    /// ```json
    /// {"heap.growth":[{"bytes":1048576,"function":"shop::report","file":"src/report.rs","line":17,"stack":["shop::report","shop::serve"]}]}
    /// ```
    ///
    /// `bytes` is an estimate from samples. Functions of the standard library and of Tokio are left out. It needs a heap profile that runs, see [`HeapProfile`](crate::profile::HeapProfile); without it the lines have
    /// no stacks. The look-up of the names takes some 100 ms of the monitor's thread for a large executable. An `every` of
    /// 0 counts as 1.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use opentelemetry_instrumentation_runtime::{Monitor, RuntimeMetrics};
    ///
    /// # let meter = opentelemetry::global::meter("service");
    /// let metrics = RuntimeMetrics::builder().heap_profile(512 * 1024).build(&meter);
    /// // A line every ten seconds, and stacks once a minute.
    /// let _monitor = Monitor::with_stacks(&metrics, Duration::from_secs(10), 6, std::io::stderr());
    /// ```
    #[cfg(feature = "profile")]
    pub fn with_stacks(
        metrics: &RuntimeMetrics,
        interval: Duration,
        every: u32,
        writer: impl Write + Send + 'static,
    ) -> Self {
        let mut growth = Growth::start(every);
        Self::spawn(metrics, interval, writer, move |last, now, line| {
            serde_json::to_writer(line, &WithStacks { rates: WithRates { last, now }, stacks: growth.next() })
        })
    }

    /// Starts a monitor whose lines have the keys that monitors of Go programs print.
    ///
    /// | key | value |
    /// |---|---|
    /// | `Alloc` | `rust.memory.used` |
    /// | `TotalAlloc` | `rust.memory.allocated` |
    /// | `Sys` | `jemalloc.memory.mapped` or `mimalloc.memory.committed`, or else `process.memory.usage` |
    /// | `Mallocs`, `Frees` | `rust.memory.allocations`, `rust.memory.deallocations` |
    /// | `LiveObjects` | `rust.memory.allocation.count` |
    /// | `PauseTotalNs`, `NumGC` | stalls instead of pauses: `tokio.worker.stall.time` in nanoseconds, `tokio.worker.stalls` |
    /// | `NumGoroutine` | `tokio.task.count` of all runtimes |
    ///
    /// The first six except `Sys` need the `CountingAllocator`, the last three a watched runtime. A value that cannot be
    /// read is left out.
    pub fn memstats(
        metrics: &RuntimeMetrics,
        interval: Duration,
        writer: impl Write + Send + 'static,
    ) -> Self {
        let mut pauses = Pauses::default();
        Self::spawn(metrics, interval, writer, move |_, now, line| {
            pauses.update(&now.snapshot);
            serde_json::to_writer(line, &Line(Stats { snapshot: &now.snapshot, pauses: &pauses }))
        })
    }

    fn spawn(
        metrics: &RuntimeMetrics,
        interval: Duration,
        mut writer: impl Write + Send + 'static,
        mut format: impl FnMut(&Sample, &Sample, &mut Vec<u8>) -> serde_json::Result<()> + Send + 'static,
    ) -> Self {
        let metrics = metrics.clone();
        // An `Instant` cannot represent every `Duration`, and a year stands for never.
        let interval = interval.clamp(Duration::from_millis(1), Duration::from_secs(365 * 86_400));
        let (running, stop) = mpsc::channel();
        let run = move || {
            let mut last = Sample::take(&metrics);
            let mut line = Vec::new();
            let mut next = last.instant + interval;
            while stop.recv_timeout(next.saturating_duration_since(Instant::now()))
                == Err(RecvTimeoutError::Timeout)
            {
                let now = Sample::take(&metrics);
                // Lines that were missed while the writer blocked are not made up for.
                next = (next + interval).max(now.instant);
                line.clear();
                let written = format(&last, &now, &mut line).map_err(io::Error::from).and_then(|()| {
                    line.push(b'\n');
                    writer.write_all(&line)?;
                    writer.flush()
                });
                if let Err(error) = written {
                    log::warn("the monitor could not write a line and has ended", &error.to_string());
                    return;
                }
                last = now;
            }
        };
        if let Err(error) = background::spawn(thread::Builder::new().name("runtime-monitor".into()), run) {
            log::warn("could not start a thread; the monitor will write no lines", &error.to_string());
        }
        Monitor { _running: running }
    }
}

/// A snapshot and its time on the monotonic clock.
struct Sample {
    instant: Instant,
    snapshot: Snapshot,
}

impl Sample {
    fn take(metrics: &RuntimeMetrics) -> Self {
        Sample { instant: Instant::now(), snapshot: metrics.snapshot() }
    }
}

struct WithRates<'a> {
    last: &'a Sample,
    now: &'a Sample,
}

impl WithRates<'_> {
    /// Returns the growth per second of a counter's points. A point that the last line did not have has no rate.
    fn rates<'a>(&self, reading: &'a Reading) -> Vec<(&'a Point, f64)> {
        let Some(before) = self.last.snapshot.get(reading.metric().name()) else { return Vec::new() };
        let seconds = (self.now.instant - self.last.instant).as_secs_f64();
        // The points usually have the same order as last time.
        let mut candidates = before.points().iter().cycle();
        let rate = |point: &'a Point| {
            let found = candidates
                .by_ref()
                .take(before.points().len())
                .find(|before| before.attributes() == point.attributes())?;
            Some((point, (point.value().as_f64()? - found.value().as_f64()?) / seconds))
        };
        reading.points().iter().filter_map(rate).collect()
    }

    fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        json::write_snapshot(map, &self.now.snapshot)?;
        let counters = self.now.snapshot.readings().iter();
        for reading in counters.filter(|reading| reading.metric().kind() == Kind::Counter) {
            let rates = self.rates(reading);
            if !rates.is_empty() {
                let key = format_args!("{}/s", reading.metric().name());
                json::write_points(map, key, reading.metric(), rates)?;
            }
        }
        Ok(())
    }
}

impl Serialize for WithRates<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.write(&mut map)?;
        map.end()
    }
}

/// A line with stacks, if it is to have them.
#[cfg(feature = "profile")]
struct WithStacks<'a> {
    rates: WithRates<'a>,
    stacks: Option<Vec<GrownStack>>,
}

#[cfg(feature = "profile")]
impl Serialize for WithStacks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.rates.write(&mut map)?;
        if let Some(stacks) = &self.stacks {
            map.serialize_entry("heap.growth", stacks)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json::tests::{none, snapshot};
    use crate::snapshot::Value;

    #[test]
    fn rates_are_growth_over_time_of_points_that_were_there_before() {
        let start = Instant::now();
        let mode = |mode: &'static str| none().and("cpu.mode", mode);
        let at = |seconds: u64, points| Sample {
            instant: start + Duration::from_secs(seconds),
            snapshot: snapshot(seconds, points),
        };
        let last = at(
            0,
            vec![
                ("process.cpu.time", mode("user"), Value::F64(1.0)),
                ("process.uptime", none(), Value::F64(7.0)),
            ],
        );
        let now = at(
            4,
            vec![
                ("process.cpu.time", mode("system"), Value::F64(8.0)),
                ("process.cpu.time", mode("user"), Value::F64(3.0)),
                ("process.uptime", none(), Value::F64(11.0)),
                ("tokio.worker.parks", none(), Value::U64(5)),
            ],
        );
        let line = serde_json::to_string(&WithRates { last: &last, now: &now }).unwrap();
        let expected = concat!(
            r#"{"time":"1970-01-01T00:00:04.000Z","process.cpu.time":{"system":8.0,"user":3.0},"process.uptime":11.0,"#,
            r#""tokio.worker.parks":{"1":5},"process.cpu.time/s":{"user":0.5}}"#
        );
        assert_eq!(line, expected);
    }
}
