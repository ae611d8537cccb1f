//! The table of the page's plots.

use super::change::{Change, Read};
use super::line::Unit;

const ALLOCATOR_NEEDED: &str = "needs `CountingAllocator` as global allocator";
const RUNTIME_NEEDED: &str = "needs a watched runtime";
const PROBE_NEEDED: &str = "needs a watched runtime and its probe";
const NAMES_NEEDED: &str = "needs tasks with a name: `with_task_name`";

/// The plots of the page, in their order.
pub(super) static PLOTS: &[Plot] = &[
    Plot {
        title: "Memory",
        profile: "heap",
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
        profile: "allocs",
        unit: Unit::Bytes,
        needs: ALLOCATOR_NEEDED,
        lines: Lines::Fixed(&[
            ("allocated", |change| change.rate("rust.memory.allocated")),
            ("deallocated", |change| change.rate("rust.memory.deallocated")),
        ]),
    },
    Plot {
        title: "Allocations a second",
        profile: "allocs",
        unit: Unit::Count,
        needs: ALLOCATOR_NEEDED,
        lines: Lines::Fixed(&[
            ("allocations", |change| change.rate("rust.memory.allocations")),
            ("deallocations", |change| change.rate("rust.memory.deallocations")),
            ("reallocations", |change| change.rate("rust.memory.reallocations")),
        ]),
    },
    Plot {
        title: "Tasks",
        profile: "tasks",
        unit: Unit::Count,
        needs: RUNTIME_NEEDED,
        lines: Lines::Fixed(&[("alive", |change| change.value("tokio.task.count"))]),
    },
    Plot {
        title: "Tasks by name",
        profile: "tasks",
        unit: Unit::Count,
        needs: NAMES_NEEDED,
        lines: Lines::ByName(&ByName { metric: "rust.task.count", read: Read::Level }),
    },
    Plot {
        title: "Busy workers by task name",
        profile: "profile",
        unit: Unit::Count,
        needs: NAMES_NEEDED,
        lines: Lines::ByName(&ByName { metric: "rust.task.busy.time", read: Read::Rate }),
    },
    Plot {
        title: "Slow polls a second by task name",
        profile: "stalls",
        unit: Unit::Count,
        needs: NAMES_NEEDED,
        lines: Lines::ByName(&ByName { metric: "rust.task.slow_polls", read: Read::Rate }),
    },
    Plot {
        title: "Queue",
        profile: "stalls",
        unit: Unit::Count,
        needs: RUNTIME_NEEDED,
        lines: Lines::Fixed(&[("waiting for a worker", |change| change.value("tokio.queue.length"))]),
    },
    Plot {
        title: "Busy",
        profile: "profile",
        unit: Unit::Share,
        needs: RUNTIME_NEEDED,
        lines: Lines::Fixed(&[
            // Tokio adds the time of a long poll all at once, when the poll ends.
            ("workers", |change| {
                let share = change.rate("tokio.worker.busy.time")? / change.value("tokio.worker.count")?;
                Some(share.min(1.0))
            }),
            ("CPUs", |change| Some(change.rate("process.cpu.time")? / change.value("rust.cpu.count")?)),
        ]),
    },
    Plot {
        title: "Schedule delay",
        profile: "stalls",
        unit: Unit::Seconds,
        needs: PROBE_NEEDED,
        lines: Lines::Fixed(&[
            ("median", |change| change.quantile("tokio.schedule.delay", 0.5)),
            ("slowest", |change| change.quantile("tokio.schedule.delay", 1.0)),
        ]),
    },
    Plot {
        title: "Stalled workers",
        profile: "stalls",
        unit: Unit::Count,
        needs: PROBE_NEEDED,
        lines: Lines::Fixed(&[("stalled", stalled_workers)]),
    },
];

/// Returns the number of workers that made no progress: each adds one second a second to the time of all stalls.
pub(super) fn stalled_workers(change: &Change<'_>) -> Option<f64> {
    change.rate("tokio.worker.stall.time")
}

pub(super) struct Plot {
    pub(super) title: &'static str,
    /// The name of the profile that shows the code behind it.
    pub(super) profile: &'static str,
    pub(super) unit: Unit,
    /// The requirement that is not met if the plot has no line.
    pub(super) needs: &'static str,
    pub(super) lines: Lines,
}

/// Reads the value of a line.
type Value = fn(&Change<'_>) -> Option<f64>;

pub(super) enum Lines {
    /// The name of each line, and how to read its value.
    Fixed(&'static [(&'static str, Value)]),
    /// One line for each of the largest task names.
    ByName(&'static ByName),
}

pub(super) struct ByName {
    pub(super) metric: &'static str,
    pub(super) read: Read,
}

/// Returns the fixed lines of all plots, each with the title of its plot.
pub(super) fn fixed() -> impl Iterator<Item = (&'static str, Value)> {
    PLOTS.iter().flat_map(|plot| {
        let lines = match plot.lines {
            Lines::Fixed(lines) => lines,
            Lines::ByName(_) => &[],
        };
        lines.iter().map(|(_, read)| (plot.title, *read))
    })
}

/// Returns the plots by task name.
pub(super) fn by_name() -> impl Iterator<Item = &'static ByName> {
    PLOTS.iter().filter_map(|plot| match plot.lines {
        Lines::ByName(by_name) => Some(by_name),
        Lines::Fixed(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_title_is_unique() {
        let mut titles: Vec<_> = PLOTS.iter().map(|plot| plot.title).collect();
        titles.sort_unstable();
        titles.dedup();
        assert_eq!(titles.len(), PLOTS.len());
    }
}
