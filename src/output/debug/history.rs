//! What the plots show: which lines, and their last ten minutes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::change::Change;
use super::plot;

/// How long each sample stands for. The sampler keeps this pace.
pub(super) const SECONDS: usize = 600;
/// Of so many names the tasks are kept, those with the most of them.
const NAMES: usize = 8;

/// The plots of the page, in their order.
pub(super) static PLOTS: &[Plot] = &[
    Plot {
        title: "Memory",
        unit: Unit::Bytes,
        needs: "the process's memory is read on Linux, the rest needs `CountingAllocator` as global allocator",
        lines: Lines::Fixed(&[
            ("used", |change| change.value("rust.memory.used")),
            ("resident", |change| change.value("process.memory.usage")),
            ("peak", |change| change.value("rust.memory.peak")),
        ]),
    },
    Plot {
        title: "Bytes allocated a second",
        unit: Unit::Bytes,
        needs: "needs `CountingAllocator` as global allocator",
        lines: Lines::Fixed(&[
            ("allocated", |change| change.rate("rust.memory.allocated")),
            ("deallocated", |change| change.rate("rust.memory.deallocated")),
        ]),
    },
    Plot {
        title: "Allocations a second",
        unit: Unit::Count,
        needs: "needs `CountingAllocator` as global allocator",
        lines: Lines::Fixed(&[
            ("allocations", |change| change.rate("rust.memory.allocations")),
            ("deallocations", |change| change.rate("rust.memory.deallocations")),
            ("reallocations", |change| change.rate("rust.memory.reallocations")),
        ]),
    },
    Plot {
        title: "Tasks",
        unit: Unit::Count,
        needs: "needs a watched runtime",
        lines: Lines::Fixed(&[("alive", |change| change.value("tokio.task.count"))]),
    },
    Plot {
        title: "Tasks by name",
        unit: Unit::Count,
        needs: "needs tasks with a name: `with_task_name`",
        lines: Lines::ByName,
    },
    Plot {
        title: "Queue",
        unit: Unit::Count,
        needs: "needs a watched runtime",
        lines: Lines::Fixed(&[("waiting for a worker", |change| change.value("tokio.queue.length"))]),
    },
    Plot {
        title: "Busy",
        unit: Unit::Share,
        needs: "needs a watched runtime",
        lines: Lines::Fixed(&[
            // The time of a long poll is added when it ends, all at once.
            ("workers", |change| {
                let share = change.rate("tokio.worker.busy.time")? / change.value("tokio.worker.count")?;
                Some(share.min(1.0))
            }),
            ("CPUs", |change| Some(change.rate("process.cpu.time")? / change.value("rust.cpu.count")?)),
        ]),
    },
    Plot {
        title: "Schedule delay",
        unit: Unit::Seconds,
        needs: "needs a watched runtime and its probe",
        lines: Lines::Fixed(&[
            ("median", |change| change.quantile("tokio.schedule.delay", 0.5)),
            ("slowest", |change| change.quantile("tokio.schedule.delay", 1.0)),
        ]),
    },
    Plot {
        title: "Stalled workers",
        unit: Unit::Count,
        needs: "needs a watched runtime and its probe",
        lines: Lines::Fixed(&[("stalled", stalled)]),
    },
];

/// Workers that make no progress: the time of all stalls grows by a second each second for each of them.
fn stalled(change: &Change<'_>) -> Option<f64> {
    change.rate("tokio.worker.stall.time")
}

pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    /// What is missing when it has no line.
    pub(super) needs: &'static str,
    pub(super) lines: Lines,
}

pub(super) enum Lines {
    /// Name and reading of each.
    Fixed(&'static [(&'static str, Read)]),
    /// One for each of the task names with the most tasks.
    ByName,
}

type Read = fn(&Change<'_>) -> Option<f64>;

#[derive(Clone, Copy)]
pub(super) enum Unit {
    Bytes,
    Count,
    Seconds,
    Share,
}

/// The last ten minutes, second by second.
#[derive(Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    pushed: usize,
}

/// One second. Single precision is far finer than a plot, and halves the memory.
struct Sample {
    /// The fixed lines of all plots, one after the other, NaN where there is nothing.
    values: Box<[f32]>,
    names: Box<[(Arc<str>, f32)]>,
    stalled: bool,
}

/// A line of a plot, the latest value last.
pub(super) struct Line {
    pub(super) name: Arc<str>,
    /// NaN where there is nothing.
    pub(super) values: Vec<f64>,
}

impl Line {
    pub(super) fn latest(&self) -> Option<f64> {
        self.values.last().copied().filter(|value| value.is_finite())
    }
}

impl History {
    pub(super) fn push(&mut self, change: &Change<'_>) {
        if self.samples.len() >= SECONDS {
            self.samples.pop_front();
        }
        self.pushed += 1;
        let read = |read: &Read| read(change).map_or(f32::NAN, |value| value as f32);
        let names = change.largest("rust.task.count", "rust.task.name", NAMES);
        self.samples.push_back(Sample {
            values: fixed().map(|(_, line)| read(line)).collect(),
            names: names.into_iter().map(|(name, value)| (name, value as f32)).collect(),
            stalled: stalled(change).is_some_and(|workers| workers > 0.0),
        });
    }

    /// The lines of a plot that have any value.
    pub(super) fn lines(&self, plot: &Plot) -> Vec<Line> {
        let mut lines: Vec<_> = match plot.lines {
            Lines::Fixed(own) => {
                let first = fixed().position(|(title, _)| title == plot.title).unwrap_or_default();
                let line = |(offset, (name, _)): (usize, &(&'static str, Read))| Line {
                    name: Arc::from(*name),
                    values: self.values(|sample| sample.values.get(first + offset).copied()),
                };
                own.iter().enumerate().map(line).collect()
            }
            Lines::ByName => self.by_name(),
        };
        lines.retain(|line| line.values.iter().any(|value| value.is_finite()));
        lines
    }

    /// Whether a plot shows anything now that it did not show a second ago: a point of it comes to several seconds when the
    /// history is long, but a stall is shown at once.
    pub(super) fn has_news(&self) -> bool {
        let mut stalled = self.samples.iter().rev().map(|sample| sample.stalled);
        stalled.next() != stalled.next() || self.pushed.is_multiple_of(plot::step(self.samples.len()))
    }

    /// For how many seconds a worker has been stalled without a break, until now.
    pub(super) fn stalled_for(&self) -> usize {
        self.samples.iter().rev().take_while(|sample| sample.stalled).count()
    }

    fn by_name(&self) -> Vec<Line> {
        let Some(latest) = self.samples.back() else { return Vec::new() };
        let named = |(name, _): &(Arc<str>, f32)| Line { name: Arc::clone(name), values: Vec::new() };
        let mut lines: Vec<_> = latest.names.iter().map(named).collect();
        for sample in &self.samples {
            lines.iter_mut().for_each(|line| line.values.push(f64::NAN));
            for (name, value) in &sample.names {
                // A name is as a rule the same text in the same place: comparing all texts would cost more than to draw.
                let line = lines.iter().position(|line| Arc::ptr_eq(&line.name, name));
                let line = line.or_else(|| lines.iter().position(|line| line.name == *name));
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

    /// What it occupies, but for the names, which the tasks' own registry holds.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let of = |sample: &Sample| size_of_val(&*sample.values) + size_of_val(&*sample.names);
        self.samples.capacity() * size_of::<Sample>() + self.samples.iter().map(of).sum::<usize>()
    }
}

/// The fixed lines of all plots, with the title of theirs.
fn fixed() -> impl Iterator<Item = (&'static str, &'static Read)> {
    PLOTS.iter().flat_map(|plot| {
        let lines = match plot.lines {
            Lines::Fixed(lines) => lines,
            Lines::ByName => &[],
        };
        lines.iter().map(|(_, read)| (plot.title, read))
    })
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

    /// That of a program that has run for `seconds`.
    pub(in crate::output::debug) fn after(seconds: u64) -> History {
        let mut history = History::default();
        for second in 1..=seconds {
            let (last, now) = (at(second - 1), at(second));
            history.push(&Change { last: &last, now: &now, time: Duration::from_secs(1) });
        }
        history
    }

    fn plot(title: &str) -> &'static Plot {
        PLOTS.iter().find(|plot| plot.title == title).unwrap()
    }

    #[test]
    fn ten_minutes_are_kept_in_less_than_a_megabyte() {
        let history = after(700);
        println!("history of {} samples: {} bytes", history.samples.len(), history.bytes());
        assert_eq!(history.samples.len(), SECONDS);
        assert!(history.bytes() < 1_000_000);
        let lines = history.lines(plot("Memory"));
        assert_eq!(lines.len(), 1, "what has no value has no line");
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
        assert_eq!((names.len(), &*names[0].name, names[0].latest()), (NAMES, "task 199", Some(209.0)));
    }

    #[test]
    fn a_stall_is_seen_while_it_lasts() {
        assert_eq!(after(650).stalled_for(), 0);
        assert_eq!(after(653).stalled_for(), 3);
    }

    #[test]
    fn what_shows_nothing_new_is_no_news() {
        let news = |seconds: std::ops::Range<u64>| seconds.filter(|second| after(*second).has_news()).count();
        assert_eq!(news(100..112), 12, "each second is a point");
        assert_eq!(news(300..312), 6, "two are");
        assert_eq!(news(632..644), 4, "three are");
        assert!(after(651).has_news(), "a stall has begun");
    }

    #[test]
    fn titles_tell_plots_apart() {
        let mut titles: Vec<_> = PLOTS.iter().map(|plot| plot.title).collect();
        titles.sort_unstable();
        titles.dedup();
        assert_eq!(titles.len(), PLOTS.len());
    }
}
