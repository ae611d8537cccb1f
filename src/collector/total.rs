//! Keeps counters from falling.

use crate::snapshot::{Attributes, Point, Value};

/// The last reported values of a counter, one for each of its series.
#[derive(Default)]
pub(crate) struct Totals {
    list: Vec<Total>,
    /// The index at which the next point is expected, since the series come in the same order each time.
    next: usize,
}

/// The last reported value of one series.
struct Total {
    attributes: Attributes,
    epoch: u64,
    /// The last sample that contained the counter.
    sample: u64,
    /// The total of earlier incarnations of the series.
    base: Value,
    last: Value,
}

impl Totals {
    /// The number of ended series that are kept, such as those of runtimes that may start again under their old names.
    pub(crate) const ENDED: usize = 100;

    /// Changes the points of one sample so that their counters never fall and continue from an earlier incarnation.
    pub(crate) fn make_monotonic(&mut self, points: &mut [Point], sample: u64) {
        self.next = 0;
        for point in &mut *points {
            self.make_point_monotonic(point, sample);
        }
        self.forget(points.len());
    }

    fn make_point_monotonic(&mut self, point: &mut Point, sample: u64) {
        match self.find(&point.attributes) {
            Some(total) => {
                total.sample = sample;
                if total.epoch != point.epoch {
                    total.epoch = point.epoch;
                    total.base = total.last.clone();
                }
                point.value.add(&total.base);
                point.value.raise(&total.last);
                total.last.clone_from(&point.value);
            }
            None => {
                let (attributes, base) = (point.attributes.clone(), point.value.zero());
                let last = point.value.clone();
                self.list.push(Total { attributes, epoch: point.epoch, sample, base, last });
            }
        }
    }

    /// Finds a series: the next one, or one of the others.
    fn find(&mut self, attributes: &Attributes) -> Option<&mut Total> {
        let (before, after) = self.list.split_at_checked(self.next).unwrap_or((&self.list, &[]));
        let is_same = |total: &Total| total.attributes == *attributes;
        let index = match after.iter().position(is_same) {
            Some(index) => self.next + index,
            None => before.iter().position(is_same)?,
        };
        self.next = index + 1;
        self.list.get_mut(index)
    }

    /// Returns the attributes of the series that are kept.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> Vec<&Attributes> {
        self.list.iter().map(|total| &total.attributes).collect()
    }

    /// Drops the series that ended longest ago, once there are twice as many as are kept.
    fn forget(&mut self, live: usize) {
        if self.list.len() > live + 2 * Self::ENDED {
            let mut samples: Vec<u64> = self.list.iter().map(|total| total.sample).collect();
            samples.sort_unstable_by(|a, b| b.cmp(a));
            let oldest = samples.get(live + Self::ENDED).copied().unwrap_or_default();
            self.list.retain(|total| total.sample > oldest);
        }
    }
}
