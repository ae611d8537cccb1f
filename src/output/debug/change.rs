//! What has happened between two snapshots.

use std::sync::Arc;
use std::time::Duration;

use crate::output::memstats::sum;
use crate::snapshot::{AttributeValue, Histogram, Snapshot, Value};

pub(super) struct Change<'a> {
    pub(super) last: &'a Snapshot,
    pub(super) now: &'a Snapshot,
    pub(super) time: Duration,
}

impl Change<'_> {
    /// The value that a metric has now, over all its points.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        sum(self.now, name)?.as_f64()
    }

    /// The growth of a counter in a second.
    pub(super) fn rate(&self, name: &str) -> Option<f64> {
        let grown = sum(self.now, name)?.as_f64()? - sum(self.last, name)?.as_f64()?;
        let seconds = self.time.as_secs_f64();
        (seconds > 0.0).then(|| grown.max(0.0) / seconds)
    }

    /// The upper bound of what this share of the samples since then took.
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

    /// A metric's points by the value of an attribute, the largest first, no more than so many.
    pub(super) fn largest(&self, name: &str, attribute: &str, most: usize) -> Vec<(Arc<str>, f64)> {
        let points = self.now.get(name).map(|reading| reading.points()).unwrap_or_default();
        let mut all: Vec<_> = points
            .iter()
            .filter_map(|point| Some((point.attributes().get(attribute)?, point.value().as_f64()?)))
            .collect();
        all.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        all.truncate(most);
        all.into_iter().map(|(name, value)| (shared(name), value)).collect()
    }
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
    fn the_largest_are_named() {
        let count = |name: &str, value| {
            ("rust.task.count", none().and("rust.task.name", Arc::<str>::from(name)), Value::U64(value))
        };
        let now = snapshot(0, vec![count("a", 1), count("b", 3), count("c", 2)]);
        let change = Change { last: &now, now: &now, time: Duration::from_secs(1) };
        let largest = change.largest("rust.task.count", "rust.task.name", 2);
        assert_eq!(largest, [(Arc::from("b"), 3.0), (Arc::from("c"), 2.0)]);
    }
}
