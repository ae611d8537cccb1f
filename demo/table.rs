//! The tables of tasks and of all other series.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::series::{History, Series, TASK};
use crate::summary::Stalls;

/// The metrics that come first, since a terminal may not have room for all.
const FIRST: [&str; 8] = [
    "rust.memory.used",
    "process.memory.usage",
    "tokio.task.count",
    "tokio.worker.stall.time",
    "tokio.worker.stalls",
    "tokio.schedule.delay",
    "tokio.worker.busy.time",
    "process.cpu.time",
];

/// Returns the table of tasks, with a mark for those that grow or hold a worker.
pub(crate) fn tasks(history: &History, stalls: &Stalls, now: Instant) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<14}{:>6}{:>12}{:>10}{:>9}{:>9}{:>6}{:>12}",
        "task", "alive", "since start", "spawned/s", "polls/s", "busy/s", "slow", "allocated/s"
    )];
    let names: BTreeSet<_> =
        history.current().filter_map(|(_, attributes, _)| attributes.get(TASK)).collect();
    for task in names {
        let cell = |metric: &str, show: fn(&Series) -> String| {
            history.of_task(metric, task).map(show).unwrap_or_default()
        };
        let mark = match history.of_task("rust.task.count", task) {
            Some(count) if count.leaks() => " <",
            _ if stalls.is_by(task, now) => " !",
            _ => "",
        };
        lines.push(format!(
            "{:<14}{:>6}{:>12}{:>10}{:>9}{:>9}{:>6}{:>12}{mark}",
            shortened(task, 13),
            cell("rust.task.count", Series::now),
            cell("rust.task.count", Series::growth),
            cell("rust.task.spawned", Series::rate),
            cell("rust.task.polls", Series::rate),
            cell("rust.task.busy.time", Series::rate),
            cell("rust.task.slow_polls", Series::now),
            cell("rust.task.memory.allocated", Series::rate),
        ));
    }
    lines
}

/// Returns the table of the other metrics, the most important ones first.
pub(crate) fn metrics(history: &History) -> Vec<String> {
    let mut lines =
        vec![format!("{:<31}{:<12}{:>12}{:>11}{:>12}", "metric", "", "now", "a second", "since start")];
    let mut rows: Vec<_> =
        history.current().filter(|(_, attributes, _)| !attributes.contains_key(TASK)).collect();
    rows.sort_by_key(|(name, ..)| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    for (name, attributes, series) in rows {
        let attributes = attributes.values().map(String::as_str).collect::<Vec<_>>().join(" ");
        let [now, rate, growth] = [series.now(), series.rate(), series.growth()];
        // A long name may take the column of the attributes, where there are none.
        let label = if attributes.is_empty() {
            format!("{name:<43}")
        } else {
            format!("{:<31}{:<12}", name, shortened(&attributes, 11))
        };
        lines.push(format!("{label}{now:>12}{rate:>11}{growth:>12}"));
    }
    lines
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let start: String = text.chars().take(most.saturating_sub(2)).collect();
    format!("{start}..")
}
