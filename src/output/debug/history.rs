//! The last ten minutes of what the plots show.

use std::collections::VecDeque;
use std::sync::Arc;

use super::change::{Change, Read};
use super::line::{Line, SECONDS, values_per_point};
use super::plots::{self, ByName, Lines, Plot, stalled_workers};

/// The most task names that a plot shows and a sample keeps.
const MAX_NAMES: usize = 8;

/// The last ten minutes, second by second.
#[derive(Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    pushed: usize,
}

/// One second. Single precision is much finer than a plot and needs half the memory.
struct Sample {
    /// The fixed lines of all plots, one after the other, NaN where nothing could be read.
    values: Box<[f32]>,
    /// The largest names of each plot by task name.
    names: Box<[Names]>,
    stalled: bool,
}

type Names = Box<[(Arc<str>, f32)]>;

impl History {
    pub(super) fn push(&mut self, change: &Change<'_>) {
        if self.samples.len() >= SECONDS {
            self.samples.pop_front();
        }
        self.pushed += 1;
        self.samples.push_back(Sample {
            values: plots::fixed()
                .map(|(_, read)| read(change).map_or(f32::NAN, |value| value as f32))
                .collect(),
            names: plots::by_name().map(|plot| largest(change, plot)).collect(),
            stalled: stalled_workers(change).is_some_and(|workers| workers > 0.0),
        });
    }

    /// Returns the lines of a plot that have any value.
    pub(super) fn lines(&self, plot: &Plot) -> Vec<Line> {
        let mut lines: Vec<_> = match plot.lines {
            Lines::Fixed(own) => {
                let first = plots::fixed().position(|(title, _)| title == plot.title).unwrap_or_default();
                let line = |(offset, name): (usize, &str)| Line {
                    name: Arc::from(name),
                    values: self.values(|sample| sample.values.get(first + offset).copied()),
                };
                own.iter().map(|(name, _)| *name).enumerate().map(line).collect()
            }
            Lines::ByName(by_name) => self.lines_by_name(by_name),
        };
        lines.retain(|line| line.values.iter().any(|value| value.is_finite()));
        lines
    }

    /// Returns true if the plots differ from a second ago. A point of a long history stands for several seconds, but a
    /// stall shows at once.
    pub(super) fn has_news(&self) -> bool {
        let mut stalled = self.samples.iter().rev().map(|sample| sample.stalled);
        let (now, before) = (stalled.next().unwrap_or(false), stalled.next().unwrap_or(false));
        now || before || self.pushed.is_multiple_of(values_per_point(self.samples.len()))
    }

    /// Returns the lines of the names that were largest over the whole time.
    fn lines_by_name(&self, plot: &'static ByName) -> Vec<Line> {
        let Some(index) = plots::by_name().position(|other| std::ptr::eq(other, plot)) else {
            return Vec::new();
        };
        let samples =
            || self.samples.iter().map(|sample| sample.names.get(index).map_or(&[][..], |names| names));
        let mut names: Vec<(&Arc<str>, f64)> = Vec::new();
        for (name, value) in samples().flatten() {
            match position(names.iter().map(|(name, _)| *name), name).and_then(|found| names.get_mut(found)) {
                Some((_, sum)) => *sum += f64::from(*value),
                None => names.push((name, f64::from(*value))),
            }
        }
        names.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        names.truncate(MAX_NAMES);
        let mut lines: Vec<_> =
            names.iter().map(|(name, _)| Line { name: Arc::clone(name), values: Vec::new() }).collect();
        for sample in samples() {
            // A rate of 0 is not kept. In a full sample it may also be one that was too small.
            let absent = if plot.read == Read::Rate && sample.len() < MAX_NAMES { 0.0 } else { f64::NAN };
            lines.iter_mut().for_each(|line| line.values.push(absent));
            for (name, value) in sample {
                let line = position(lines.iter().map(|line| &line.name), name);
                if let Some(last) = line.and_then(|line| lines.get_mut(line)?.values.last_mut()) {
                    *last = f64::from(*value);
                }
            }
        }
        lines
    }

    fn values(&self, of: impl Fn(&Sample) -> Option<f32>) -> Vec<f64> {
        self.samples.iter().map(|sample| of(sample).map_or(f64::NAN, f64::from)).collect()
    }

    /// The memory it occupies, except the names, which the registry of task names holds.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let names = |names: &Names| size_of::<Names>() + size_of_val(&**names);
        let of =
            |sample: &Sample| size_of_val(&*sample.values) + sample.names.iter().map(names).sum::<usize>();
        self.samples.capacity() * size_of::<Sample>() + self.samples.iter().map(of).sum::<usize>()
    }
}

fn largest(change: &Change<'_>, plot: &ByName) -> Names {
    let mut names = change.by_name(plot.metric, plot.read);
    names.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    names.truncate(MAX_NAMES);
    names.into_iter().map(|(name, value)| (name, value as f32)).collect()
}

/// Finds a name among others. The same name is almost always the same allocation, so it compares pointers first:
/// comparing every text would cost more than drawing.
fn position<'a>(names: impl Iterator<Item = &'a Arc<str>> + Clone, wanted: &Arc<str>) -> Option<usize> {
    names
        .clone()
        .position(|name| Arc::ptr_eq(name, wanted))
        .or_else(|| names.clone().position(|name| name == wanted))
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::output::json::tests::{none, snapshot};
    use crate::snapshot::{Snapshot, Value};

    fn at(second: u64) -> Snapshot {
        let mut points = vec![
            ("rust.memory.used", none(), Value::U64(second * 1000)),
            ("rust.memory.allocated", none(), Value::U64(second * second)),
            ("tokio.worker.stall.time", none(), Value::F64((second as f64 - 650.0).max(0.0))),
        ];
        for name in 0..200 {
            let attributes = none().and("rust.task.name", Arc::<str>::from(format!("task {name}")));
            points.push(("rust.task.count", attributes, Value::U64(name + second)));
        }
        snapshot(second, points)
    }

    /// The history of a program that has run for `seconds`.
    pub(in crate::output::debug) fn after(seconds: u64) -> History {
        let mut history = History::default();
        for second in 1..=seconds {
            let (last, now) = (at(second - 1), at(second));
            history.push(&Change { last: &last, now: &now, time: Duration::from_secs(1) });
        }
        history
    }

    fn plot(title: &str) -> &'static Plot {
        plots::PLOTS.iter().find(|plot| plot.title == title).unwrap()
    }

    #[test]
    fn ten_minutes_are_kept_in_less_than_a_megabyte() {
        let history = after(700);
        println!("history of {} samples: {} bytes", history.samples.len(), history.bytes());
        assert_eq!(history.samples.len(), SECONDS);
        assert!(history.bytes() < 1_000_000);
        let lines = history.lines(plot("Memory"));
        assert_eq!(lines.len(), 1, "a line without a value is left out");
        assert_eq!((&*lines[0].name, lines[0].values.len()), ("used", SECONDS));
        assert_eq!((lines[0].values[0], lines[0].latest()), (101_000.0, Some(700_000.0)));
    }

    #[test]
    fn each_line_is_read_where_it_was_written() {
        let history = after(10);
        let lines = history.lines(plot("Bytes allocated a second"));
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].latest(), Some(19.0), "10 squared less 9 squared");
        assert!(history.lines(plot("Queue")).is_empty());
        let names = history.lines(plot("Tasks by name"));
        assert_eq!((names.len(), &*names[0].name, names[0].latest()), (MAX_NAMES, "task 199", Some(209.0)));
    }

    #[test]
    fn a_name_keeps_its_line_of_rates_after_it_has_become_idle() {
        let slow = |name: &str, value| {
            ("rust.task.slow_polls", none().and("rust.task.name", Arc::<str>::from(name)), Value::U64(value))
        };
        let at = |a, b| snapshot(0, vec![slow("a", a), slow("b", b)]);
        let mut history = History::default();
        for (last, now) in [(at(0, 0), at(5, 0)), (at(5, 0), at(5, 1)), (at(5, 1), at(5, 1))] {
            history.push(&Change { last: &last, now: &now, time: Duration::from_secs(1) });
        }
        let lines = history.lines(plot("Slow polls a second by task name"));
        let lines: Vec<_> = lines.iter().map(|line| (&*line.name, line.values.clone())).collect();
        assert_eq!(lines, [("a", vec![5.0, 0.0, 0.0]), ("b", vec![0.0, 1.0, 0.0])]);
    }

    #[test]
    fn unchanged_plots_have_no_news() {
        let news = |seconds: std::ops::Range<u64>| seconds.filter(|second| after(*second).has_news()).count();
        assert_eq!(news(100..112), 12, "each second is a point");
        assert_eq!(news(300..312), 6, "two are");
        assert_eq!(news(632..644), 4, "three are");
        assert!(after(651).has_news(), "a stall has begun");
    }
}
