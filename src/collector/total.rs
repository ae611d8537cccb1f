//! Keeps counters from falling.

use std::collections::HashMap;

use crate::snapshot::{Attributes, Point, Value};

/// The last reported value of a counter.
pub(crate) struct Total {
    epoch: u64,
    /// The last sample that contained the counter.
    sample: u64,
    /// The total of earlier incarnations of the series.
    base: Value,
    last: Value,
}

impl Total {
    /// The number of ended series that are kept, such as those of runtimes that may start again under their old names.
    pub(crate) const ENDED: usize = 100;

    /// Changes a point so that its counter never falls and continues from an earlier incarnation.
    pub(crate) fn make_monotonic(totals: &mut HashMap<Attributes, Total>, point: &mut Point, sample: u64) {
        match totals.get_mut(&point.attributes) {
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
                let base = point.value.zero();
                let total = Total { epoch: point.epoch, sample, base, last: point.value.clone() };
                totals.insert(point.attributes.clone(), total);
            }
        }
    }

    /// Drops the series that ended longest ago, once there are twice as many as are kept.
    pub(crate) fn forget(totals: &mut HashMap<Attributes, Total>, live: usize) {
        if totals.len() > live + 2 * Self::ENDED {
            let mut samples: Vec<u64> = totals.values().map(|total| total.sample).collect();
            samples.sort_unstable_by(|a, b| b.cmp(a));
            let oldest = samples.get(live + Self::ENDED).copied().unwrap_or_default();
            totals.retain(|_, total| total.sample > oldest);
        }
    }
}
