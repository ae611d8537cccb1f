//! The change between two snapshots.

use std::sync::Arc;
use std::time::Duration;

use crate::output::sum::sum;
use crate::snapshot::{AttributeValue, Histogram, Point, Snapshot, Value};

/// The way in which the value of a task name is read.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Read {
    /// The value itself.
    Level,
    /// The growth in a second.
    Rate,
}

/// Two snapshots and the time between them.
pub(super) struct Change<'a> {
    pub(super) last: &'a Snapshot,
    pub(super) now: &'a Snapshot,
    pub(super) time: Duration,
}

impl Change<'_> {
    /// Returns the present value of a metric over all its points.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        sum(self.now, name)?.as_f64()
    }

    /// Returns the growth of a counter in a second.
    pub(super) fn rate(&self, name: &str) -> Option<f64> {
        let grown = sum(self.now, name)?.as_f64()? - sum(self.last, name)?.as_f64()?;
        let seconds = self.time.as_secs_f64();
        (seconds > 0.0).then(|| grown.max(0.0) / seconds)
    }

    /// Returns the upper bound of the durations of this share of the new samples.
    pub(super) fn quantile(&self, name: &str, share: f64) -> Option<f64> {
        let (now, last) = (histogram(self.now, name)?, histogram(self.last, name));
        let before =
            |bucket: usize| last.as_ref().and_then(|last| last.counts.get(bucket)).copied().unwrap_or(0);
        let new: Vec<_> = now
            .counts
            .iter()
            .enumerate()
            .map(|(bucket, count)| count.saturating_sub(before(bucket)))
            .collect();
        let wanted = new.iter().sum::<u64>() as f64 * share;
        let mut below = 0;
        let bucket = new.iter().position(|count| {
            below += count;
            *count > 0 && below as f64 >= wanted
        })?;
        // The last bucket has no upper bound.
        now.bounds.get(bucket).or_else(|| now.bounds.last()).copied()
    }

    /// Returns the value of each task name, without rates of 0.
    pub(super) fn by_name(&self, metric: &str, read: Read) -> Vec<(Arc<str>, f64)> {
        let seconds = self.time.as_secs_f64();
        let (now, last) = (points(self.now, metric), points(self.last, metric));
        // The points usually have the same order as last time.
        let mut before = last.iter().cycle();
        let value = |point: &Point| {
            let name = point.attributes().get("rust.task.name")?;
            let value = point.value().as_f64()?;
            let value = match read {
                Read::Level => value,
                Read::Rate => {
                    let same = |before: &&Point| before.attributes() == point.attributes();
                    let before = before.by_ref().take(last.len()).find(same);
                    let rate =
                        (value - before.and_then(|before| before.value().as_f64()).unwrap_or(0.0)) / seconds;
                    (rate > 0.0 && rate.is_finite()).then_some(rate)?
                }
            };
            Some((shared(name), value))
        };
        now.iter().filter_map(value).collect()
    }
}

fn points<'a>(snapshot: &'a Snapshot, metric: &str) -> &'a [Point] {
    snapshot.get(metric).map(|reading| reading.points()).unwrap_or_default()
}

fn histogram(snapshot: &Snapshot, name: &str) -> Option<Histogram> {
    match sum(snapshot, name)? {
        Value::Histogram(histogram) => Some(histogram),
        _ => None,
    }
}

fn shared(value: &AttributeValue) -> Arc<str> {
    match value {
        AttributeValue::Shared(text) => Arc::clone(text),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json::tests::{none, snapshot};

    fn delays(counts: [u64; 3]) -> Snapshot {
        let histogram = Histogram { bounds: Arc::new([0.1, 0.2]), counts: counts.to_vec(), sum: 0.0 };
        snapshot(0, vec![("tokio.schedule.delay", none(), Value::Histogram(histogram))])
    }

    #[test]
    fn quantiles_are_those_of_the_new_samples() {
        let (last, now) = (delays([100, 0, 7]), delays([103, 1, 7]));
        let change = Change { last: &last, now: &now, time: Duration::from_secs(1) };
        assert_eq!(change.quantile("tokio.schedule.delay", 0.5), Some(0.1));
        assert_eq!(change.quantile("tokio.schedule.delay", 1.0), Some(0.2));
        let unchanged = Change { last: &now, ..change };
        assert_eq!(unchanged.quantile("tokio.schedule.delay", 0.5), None);
        let beyond = delays([103, 1, 8]);
        let change = Change { last: &now, now: &beyond, time: Duration::from_secs(1) };
        assert_eq!(change.quantile("tokio.schedule.delay", 1.0), Some(0.2), "the highest bound there is");
    }

    #[test]
    fn rates_are_growth_over_time() {
        let at = |value| snapshot(0, vec![("process.cpu.time", none(), Value::F64(value))]);
        let (last, now) = (at(1.0), at(2.0));
        let change = |time| Change { last: &last, now: &now, time: Duration::from_millis(time) };
        assert_eq!(change(500).rate("process.cpu.time"), Some(2.0));
        assert_eq!(change(0).rate("process.cpu.time"), None);
        assert_eq!(change(500).rate("process.uptime"), None);
    }

    #[test]
    fn task_names_have_levels_and_rates() {
        let count = |name: &str, value| {
            ("rust.task.count", none().and("rust.task.name", Arc::<str>::from(name)), Value::U64(value))
        };
        let last = snapshot(0, vec![count("a", 1), count("b", 1)]);
        let now = snapshot(0, vec![count("new", 2), count("a", 1), count("b", 3)]);
        let change = Change { last: &last, now: &now, time: Duration::from_millis(500) };
        let name = Arc::<str>::from;
        let levels = change.by_name("rust.task.count", Read::Level);
        assert_eq!(levels, [(name("new"), 2.0), (name("a"), 1.0), (name("b"), 3.0)]);
        let rates = change.by_name("rust.task.count", Read::Rate);
        assert_eq!(rates, [(name("new"), 4.0), (name("b"), 4.0)], "a rate of 0 is left out");
    }
}
