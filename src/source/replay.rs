//! Histograms that somebody else has counted, as single values for an instrument that counts for itself.

use crate::snapshot::Histogram;

/// What has to be recorded to get from what was recorded `before` to `now`: values and how often each, one for each
/// bucket, from the top down. No more than `most` values in all; the rest is due next time. `before` is brought up to
/// date.
///
/// The number of values in each bucket is exact. The values lie between their bucket's bounds, and so that their sum
/// is the one told if the buckets allow it.
pub(crate) fn due(now: &Histogram, before: &mut Histogram, most: u64) -> Vec<(f64, u64)> {
    if now.counts.len() != before.counts.len() {
        return Vec::new();
    }
    let buckets: Vec<Bucket> =
        (0..now.counts.len()).filter_map(|index| Bucket::new(now, before, index)).collect();
    let place = Place::of(&buckets, now.sum - before.sum);
    let mut left = most;
    let mut due = Vec::new();
    for bucket in buckets.into_iter().rev() {
        let count = bucket.count.min(left);
        if count == 0 {
            continue;
        }
        left -= count;
        let value = bucket.value(place);
        if let Some(done) = before.counts.get_mut(bucket.index) {
            *done += count;
            before.sum += value * count as f64;
            due.push((value, count));
        }
    }
    due
}

/// The values that a bucket has got.
struct Bucket {
    index: usize,
    count: u64,
    low: f64,
    /// Infinite for the last one.
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

    /// Above the lower bound, which belongs to the bucket below, and up to the upper one.
    fn value(&self, place: Place) -> f64 {
        let value = match self.high.is_finite() {
            true => self.low + place.between * self.width(),
            false => self.low + place.beyond,
        };
        value.max(self.low.next_up()).min(self.high)
    }
}

/// Where in their buckets the values lie.
#[derive(Clone, Copy)]
struct Place {
    /// From 0, the lower bound, to 1, the upper.
    between: f64,
    /// In the last bucket: how far above its lower bound.
    beyond: f64,
}

impl Place {
    /// The place at which all of them together come to `sum`.
    fn of(buckets: &[Bucket], sum: f64) -> Place {
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
            Some(beyond) if beyond >= 0.0 => Place { between: 0.5, beyond },
            _ if range > 0.0 => Place { between: (excess / range).clamp(0.0, 1.0), beyond: 0.0 },
            _ => Place { between: 0.5, beyond: 0.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: [u64; 4], sum: f64) -> Histogram {
        Histogram { bounds: [1.0, 2.0, 4.0].into(), counts: counts.into(), sum }
    }

    /// What an instrument with the same bounds makes of it, by the rule that a bucket includes its upper bound.
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
    fn a_sum_that_cannot_be_true_is_brought_into_the_buckets() {
        for sum in [-5.0, 0.0, 1e9] {
            let now = histogram([1, 1, 1, 0], sum);
            let mut arrived = now.empty();
            record(&due(&now, &mut now.empty(), u64::MAX), &mut arrived);
            assert_eq!(arrived.counts, now.counts, "{sum}");
        }
    }

    #[test]
    fn what_is_too_much_for_one_time_comes_later_and_the_slowest_come_first() {
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
    fn what_comes_on_top_is_added() {
        let mut before = histogram([1, 0, 0, 0], 0.5);
        let now = histogram([1, 2, 0, 0], 3.5);
        let due = due(&now, &mut before, u64::MAX);
        assert_eq!(due, [(1.5, 2)]);
        assert_eq!(before, now);
    }
}
