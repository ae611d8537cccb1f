//! The three lines that matter: growing memory, growing tasks, and stalls.

use std::time::{Duration, Instant};

use crate::readable::readable;
use crate::series::{History, TASK};

/// How long a stall stays marked after it was last seen.
const RECENT: Duration = Duration::from_secs(10);

/// Longer than from one sample to the next, shorter than to the one after.
const NEXT_SAMPLE: Duration = Duration::from_millis(1500);

/// The latest stall that was seen.
#[derive(Default)]
pub(crate) struct Stalls {
    latest: Option<Latest>,
}

struct Latest {
    at: Instant,
    /// How long the worker stood still.
    seconds: f64,
    causes: Vec<String>,
    /// The tasks with a slow poll at the same time.
    tasks: Vec<String>,
}

impl Stalls {
    /// Looks at the latest sample.
    pub(crate) fn update(&mut self, history: &History) {
        let slow = history.all("rust.task.slow_polls").filter(|(_, series)| series.step() > 0.0);
        let (mut slow_at, mut tasks) = (None, Vec::new());
        for (attributes, series) in slow {
            slow_at = slow_at.max(Some(series.at()));
            tasks.extend(attributes.get(TASK).cloned());
        }
        let grown = || history.all("tokio.worker.stall.time").filter(|(_, series)| series.step() > 0.0);
        let Some(at) = grown().map(|(_, series)| series.at()).max() else {
            // The slow poll counts when it ends, which can be after the sample that saw the stall.
            let is_next = |latest: &&mut Latest| slow_at.is_some_and(|at| at - latest.at < NEXT_SAMPLE);
            if let Some(latest) =
                self.latest.as_mut().filter(|latest| latest.tasks.is_empty()).filter(is_next)
            {
                latest.tasks = tasks;
            }
            return;
        };
        let new = history.all("tokio.worker.stalls").any(|(_, series)| series.step() > 0.0);
        let before = self.latest.take().filter(|_| !new);
        let (seconds, earlier) = before.map_or((0.0, Vec::new()), |before| (before.seconds, before.tasks));
        self.latest = Some(Latest {
            at,
            seconds: seconds + grown().map(|(_, series)| series.step()).sum::<f64>(),
            causes: grown()
                .filter_map(|(attributes, _)| attributes.get("tokio.stall.cause").cloned())
                .collect(),
            tasks: if tasks.is_empty() { earlier } else { tasks },
        });
    }

    /// Returns true if the task had a slow poll during the latest stall.
    pub(crate) fn is_by(&self, task: &str, now: Instant) -> bool {
        let recent = self.latest.as_ref().filter(|latest| now - latest.at < RECENT);
        recent.is_some_and(|latest| latest.tasks.iter().any(|name| name == task))
    }

    fn line(&self, history: &History, now: Instant) -> Line {
        let sum = |name| history.all(name).map(|(_, series)| series.value()).sum::<f64>();
        let [count, time] = ["tokio.worker.stalls", "tokio.worker.stall.time"].map(sum);
        let total = format!("{count} in all, {}", readable(time, "s", ""));
        match &self.latest {
            Some(latest) if now - latest.at < RECENT => {
                let ago = (now - latest.at).as_secs();
                let ago = if ago == 0 { "now".to_owned() } else { format!("{ago} s ago") };
                let cause = latest.causes.join(", ");
                let cause = if cause.is_empty() { cause } else { format!(" ({cause})") };
                let tasks = latest.tasks.join(", ");
                let tasks = if tasks.is_empty() { tasks } else { format!(", task {tasks}") };
                let seconds = readable(latest.seconds, "s", "");
                Line {
                    mark: "STALLS",
                    text: format!("a worker stood still {seconds}, {ago}{cause}{tasks}; {total}"),
                }
            }
            _ => Line { mark: "", text: format!("no worker stands still; {total}") },
        }
    }
}

pub(crate) struct Line {
    pub(crate) mark: &'static str,
    pub(crate) text: String,
}

/// Returns the lines for memory, tasks and stalls.
pub(crate) fn lines(history: &History, stalls: &Stalls, now: Instant) -> Vec<Line> {
    let mark = |leaks| if leaks { "GROWS" } else { "" };
    let memory = history.get("rust.memory.used").map(|used| Line {
        mark: mark(used.leaks()),
        text: format!(
            "memory: {} used, {} since start, {}/s",
            used.now(),
            or_0(used.growth()),
            used.growth_rate()
        ),
    });
    let leaking = history.all("rust.task.count").filter(|(_, series)| series.leaks());
    let worst = leaking.max_by(|(_, a), (_, b)| a.value().total_cmp(&b.value()));
    let tasks = match worst {
        Some((attributes, series)) => Line {
            mark: mark(true),
            text: format!(
                "task {}: {} alive, {} since start, {}/s",
                attributes.get(TASK).map(String::as_str).unwrap_or_default(),
                series.now(),
                series.growth(),
                series.growth_rate(),
            ),
        },
        None => {
            let alive = history.all("rust.task.count").map(|(_, series)| series.value()).sum::<f64>();
            Line { mark: "", text: format!("tasks: {alive} alive, by name below") }
        }
    };
    memory.into_iter().chain([tasks, stalls.line(history, now)]).collect()
}

fn or_0(growth: String) -> String {
    if growth.is_empty() { "+0".into() } else { growth }
}
