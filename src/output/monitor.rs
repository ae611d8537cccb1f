//! The snapshot as a line of JSON, again and again.

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::metric::Kind;
use crate::output::json::{self, Nested};
use crate::output::memstats;
use crate::runtime_metrics::RuntimeMetrics;
use crate::snapshot::{Point, Reading, Snapshot};
use crate::util::log;

/// Writes a line of JSON every interval, until it is dropped.
///
/// It does so on a thread of its own, hence also while every runtime of the process is blocked. The first line comes
/// after the first interval. When the writer fails, because a pipe was closed or a disk is full, there is one warning
/// in the log and no line any more; the service is not disturbed. A writer that blocks holds up nothing but the lines.
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
    /// Nothing is ever sent: when this is dropped, the thread at the other end wakes up and ends.
    _running: mpsc::Sender<Infallible>,
}

impl Monitor {
    /// Each line is a whole snapshot: the time as `time`, then the metrics by name. A counter's growth in a second,
    /// since the last line, is there too, under the metric's name with `/s`. Attributes make nested objects, whose
    /// keys are the attribute's values:
    ///
    /// ```json
    /// {"time":"2026-11-23T20:36:35.123Z","process.cpu.time":{"system":0.1,"user":2.5},"process.cpu.time/s":{"system":0.0,"user":0.9}}
    /// ```
    ///
    /// An interval below a millisecond is one of a millisecond.
    pub fn start(metrics: &RuntimeMetrics, interval: Duration, writer: impl Write + Send + 'static) -> Self {
        Self::spawn(metrics, interval, writer, |last, now, line| {
            serde_json::to_writer(line, &WithRates { last, now })
        })
    }

    /// Each line has the keys that Go programmers know, as far as they can be read here:
    ///
    /// | key | is |
    /// |---|---|
    /// | `Alloc` | `rust.memory.used` |
    /// | `TotalAlloc` | `rust.memory.allocated` |
    /// | `Sys` | what the allocator holds, `jemalloc.memory.mapped` or `mimalloc.memory.committed`; without them `process.memory.usage` |
    /// | `Mallocs`, `Frees` | `rust.memory.allocations`, `rust.memory.deallocations` |
    /// | `LiveObjects` | `rust.memory.allocation.count` |
    /// | `PauseTotalNs`, `NumGC` | what stops the world here: `tokio.worker.stall.time` in nanoseconds, `tokio.worker.stalls` |
    /// | `NumGoroutine` | `tokio.task.count`, of all runtimes |
    ///
    /// The first six but `Sys` need the `CountingAllocator`, the last three a watched runtime.
    pub fn memstats(
        metrics: &RuntimeMetrics,
        interval: Duration,
        writer: impl Write + Send + 'static,
    ) -> Self {
        Self::spawn(metrics, interval, writer, |_, now, line| {
            serde_json::to_writer(line, &memstats::Line(&now.snapshot))
        })
    }

    fn spawn(
        metrics: &RuntimeMetrics,
        interval: Duration,
        mut writer: impl Write + Send + 'static,
        format: impl Fn(&Moment, &Moment, &mut Vec<u8>) -> serde_json::Result<()> + Send + 'static,
    ) -> Self {
        let metrics = metrics.clone();
        // A year is the same as never, and clocks cannot count to everything.
        let interval = interval.clamp(Duration::from_millis(1), Duration::from_secs(365 * 86_400));
        let (running, stop) = mpsc::channel();
        let run = move || {
            let mut last = Moment::now(&metrics);
            let mut line = Vec::new();
            let mut next = last.instant + interval;
            while stop.recv_timeout(next.saturating_duration_since(Instant::now()))
                == Err(RecvTimeoutError::Timeout)
            {
                let now = Moment::now(&metrics);
                // What was missed while the writer blocked is not made up for.
                next = (next + interval).max(now.instant);
                line.clear();
                let written = format(&last, &now, &mut line).map_err(io::Error::from).and_then(|()| {
                    line.push(b'\n');
                    writer.write_all(&line)?;
                    writer.flush()
                });
                if let Err(error) = written {
                    log::warn("the monitor cannot write and has ended", &error.to_string());
                    return;
                }
                last = now;
            }
        };
        if let Err(error) = thread::Builder::new().name("runtime-monitor".into()).spawn(run) {
            log::warn("the monitor has no thread and prints nothing", &error.to_string());
        }
        Monitor { _running: running }
    }
}

/// A snapshot, and when it was taken on a clock that nobody sets.
struct Moment {
    instant: Instant,
    snapshot: Snapshot,
}

impl Moment {
    fn now(metrics: &RuntimeMetrics) -> Self {
        Moment { instant: Instant::now(), snapshot: metrics.snapshot() }
    }
}

struct WithRates<'a> {
    last: &'a Moment,
    now: &'a Moment,
}

impl WithRates<'_> {
    /// What the points of a counter have grown by in a second. A point that is new has no rate yet.
    fn rates<'a>(&self, reading: &'a Reading) -> Vec<(&'a Point, f64)> {
        let Some(before) = self.last.snapshot.get(reading.metric().name()) else { return Vec::new() };
        let seconds = (self.now.instant - self.last.instant).as_secs_f64();
        // As a rule the points are those of the last time, in the same order.
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
}

impl Serialize for WithRates<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        json::entries(&self.now.snapshot, &mut map)?;
        let counters = self.now.snapshot.readings().iter();
        for reading in counters.filter(|reading| reading.metric().kind() == Kind::Counter) {
            let mut rates = self.rates(reading);
            if !rates.is_empty() {
                map.serialize_entry(&format_args!("{}/s", reading.metric().name()), &Nested::of(&mut rates))?;
            }
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
        let at = |seconds: u64, points| Moment {
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
            r#""tokio.worker.parks":5,"process.cpu.time/s":{"user":0.5}}"#
        );
        assert_eq!(line, expected);
    }
}
