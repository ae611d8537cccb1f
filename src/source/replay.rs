//! Turns a histogram that Tokio or another part has counted into values that an instrument can record.

use crate::snapshot::Histogram;

/// Returns the values to record so that an instrument which has recorded `before` shows `now`.
///
/// Each entry is a value and a number of times to record it: one entry for each bucket, from the highest down. At most `limit`
/// values are returned; the rest follows on the next call. The values are added to `before`.
///
/// The number of values in each bucket is exact. Each value lies within its bucket, and all are placed so that their
/// sum is that of `now` if the buckets allow it.
pub(crate) fn due(now: &Histogram, before: &mut Histogram, limit: u64) -> Vec<(f64, u64)> {
    if now.counts.len() != before.counts.len() {
        return Vec::new();
    }
    let mut buckets = Vec::with_capacity(now.counts.len());
    buckets.extend((0..now.counts.len()).filter_map(|index| Bucket::new(now, before, index)));
    let position = Position::of(&buckets, now.sum - before.sum);
    let mut left = limit;
    let mut due = Vec::with_capacity(buckets.len());
    for bucket in buckets.into_iter().rev() {
        let count = bucket.count.min(left);
        if count == 0 {
            continue;
        }
        left -= count;
        let value = bucket.value(position);
        if let Some(done) = before.counts.get_mut(bucket.index) {
            *done += count;
            before.sum += value * count as f64;
            due.push((value, count));
        }
    }
    due
}

/// The new values of a bucket.
struct Bucket {
    index: usize,
    count: u64,
    low: f64,
    /// The upper bound, infinite for the last bucket.
    high: f64,
}

impl Bucket {
    fn new(now: &Histogram, before: &Histogram, index: usize) -> Option<Bucket> {
        let count = now.counts.get(index)?.saturating_sub(*before.counts.get(index)?);
        let low = index.checked_sub(1).and_then(|below| now.bounds.get(below)).copied().unwrap_or(0.0);
        let high = now.bounds.get(index).copied().unwrap_or(f64::INFINITY);
        Some(Bucket { index, count, low, high })
    }

    fn width(&self) -> f64 {
        self.high - self.low
    }

    /// Returns the value at a position. It is above the lower bound, which belongs to the bucket below.
    fn value(&self, position: Position) -> f64 {
        let value = match self.high.is_finite() {
            true => self.low + position.between * self.width(),
            false => self.low + position.beyond,
        };
        value.max(self.low.next_up()).min(self.high)
    }
}

/// The position of the values in their buckets.
#[derive(Clone, Copy)]
struct Position {
    /// From 0 for the lower bound to 1 for the upper bound.
    between: f64,
    /// In the last bucket, the distance from the lower bound.
    beyond: f64,
}

impl Position {
    /// Returns the position at which the values of all buckets add up to `sum`.
    fn of(buckets: &[Bucket], sum: f64) -> Position {
        let counted = |bucket: &Bucket| bucket.count > 0;
        let least: f64 = buckets.iter().map(|bucket| bucket.low * bucket.count as f64).sum();
        let range: f64 = buckets
            .iter()
            .filter(|bucket| counted(bucket) && bucket.high.is_finite())
            .map(|bucket| bucket.width() * bucket.count as f64)
            .sum();
        let excess = sum - least;
        let last = buckets.iter().find(|bucket| counted(bucket) && bucket.high.is_infinite());
        match last.map(|last| (excess - range / 2.0) / last.count as f64) {
            Some(beyond) if beyond >= 0.0 => Position { between: 0.5, beyond },
            _ if range > 0.0 => Position { between: (excess / range).clamp(0.0, 1.0), beyond: 0.0 },
            _ => Position { between: 0.5, beyond: 0.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: [u64; 4], sum: f64) -> Histogram {
        Histogram { bounds: [1.0, 2.0, 4.0].into(), counts: counts.into(), sum }
    }

    /// Records values as an instrument with the same bounds does: a bucket includes its upper bound.
    fn record(due: &[(f64, u64)], into: &mut Histogram) {
        for (value, times) in due {
            let bucket = into.bounds.partition_point(|bound| bound < value);
            into.counts[bucket] += times;
            into.sum += value * *times as f64;
        }
    }

    #[track_caller]
    fn assert_arrives(counts: [u64; 4], sum: f64) {
        let now = histogram(counts, sum);
        let mut before = now.empty();
        let mut arrived = now.empty();
        record(&due(&now, &mut before, u64::MAX), &mut arrived);
        assert_eq!(arrived.counts, now.counts);
        assert!((arrived.sum - now.sum).abs() < 1e-9, "{} for {}", arrived.sum, now.sum);
        assert_eq!(due(&now, &mut before, u64::MAX), []);
    }

    #[test]
    fn counts_and_sum_arrive_where_the_buckets_allow_it() {
        assert_arrives([0, 0, 0, 0], 0.0);
        assert_arrives([3, 0, 0, 0], 1.5);
        assert_arrives([3, 2, 1, 0], 1.0 + 3.0 + 3.5);
        assert_arrives([3, 2, 1, 2], 1.0 + 3.0 + 3.5 + 20.0);
        assert_arrives([3, 2, 1, 2], 0.5 + 2.5 + 2.5 + 8.0 + 1e-6);
        assert_arrives([0, 0, 0, 5], 1000.0);
        assert_arrives([0, 4, 0, 0], 8.0);
    }

    #[test]
    fn an_impossible_sum_still_fills_the_buckets() {
        for sum in [-5.0, 0.0, 1e9] {
            let now = histogram([1, 1, 1, 0], sum);
            let mut arrived = now.empty();
            record(&due(&now, &mut now.empty(), u64::MAX), &mut arrived);
            assert_eq!(arrived.counts, now.counts, "{sum}");
        }
    }

    #[test]
    fn values_above_the_limit_come_later_and_the_slowest_come_first() {
        let now = histogram([1000, 100, 10, 1], 1000.0 * 0.5 + 150.0 + 30.0 + 9.0);
        let mut before = now.empty();
        let mut arrived = now.empty();
        let first = due(&now, &mut before, 50);
        assert_eq!(first.iter().map(|(_, times)| *times).collect::<Vec<_>>(), [1, 10, 39]);
        record(&first, &mut arrived);
        let mut times = 1;
        loop {
            let next = due(&now, &mut before, 50);
            if next.is_empty() {
                break;
            }
            assert!(next.iter().map(|(_, times)| times).sum::<u64>() <= 50);
            record(&next, &mut arrived);
            times += 1;
        }
        assert_eq!(times, 1111_usize.div_ceil(50));
        assert_eq!(arrived.counts, now.counts);
        assert!((arrived.sum - now.sum).abs() < 1e-6, "{} for {}", arrived.sum, now.sum);
    }

    #[test]
    fn later_values_are_added() {
        let mut before = histogram([1, 0, 0, 0], 0.5);
        let now = histogram([1, 2, 0, 0], 3.5);
        let due = due(&now, &mut before, u64::MAX);
        assert_eq!(due, [(1.5, 2)]);
        assert_eq!(before, now);
    }
}
