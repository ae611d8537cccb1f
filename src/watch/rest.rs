//! Finds out whether a runtime is at rest. To wake a sleeping worker costs more than all else that a look does, and a
//! runtime without work learns little from it.

/// How a runtime's workers slept at the last ticks.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Tokio's count of parks and unparks of all workers, if all of them slept.
    parks: Option<u64>,
    /// The number of ticks since the probe was last woken.
    ticks: u32,
}

impl Rest {
    /// At rest the probe is woken at one tick in five: often enough to find out that the machine has no CPU to spare.
    const PERIOD: u32 = 5;
    /// The parks and unparks that the probe itself causes at most: of the worker that runs it, and of one that this worker
    /// wakes to look for more work.
    const OWN: u64 = 4;

    /// Takes in a tick and returns true if the probe is to be woken. `parks` is the count of parks and unparks of all
    /// workers, or `None` if one of them is awake.
    pub(super) fn is_probe_due(&mut self, parks: Option<u64>) -> bool {
        let own = if self.ticks == 0 { Self::OWN } else { 0 };
        let rests = self.parks.zip(parks).is_some_and(|(last, now)| now.saturating_sub(last) <= own);
        self.parks = parks;
        self.ticks += 1;
        let due = !rests || self.ticks >= Self::PERIOD;
        if due {
            self.ticks = 0;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns at which ticks the probe is woken. Each wake adds `own` to the count, and each tick `others`.
    fn wakes(ticks: u64, own: u64, others: u64) -> Vec<u64> {
        let (mut rest, mut parks) = (Rest::default(), 1);
        let mut is_due = |_: &u64| {
            let due = rest.is_probe_due(Some(parks));
            parks += others + if due { own } else { 0 };
            due
        };
        (0..ticks).filter(&mut is_due).collect()
    }

    #[test]
    fn a_runtime_without_work_is_woken_at_one_tick_in_five() {
        for own in [2, 4] {
            assert_eq!(wakes(16, own, 0), [0, 5, 10, 15], "{own}");
        }
    }

    #[test]
    fn a_runtime_with_work_is_woken_at_each_tick_or_each_other_one() {
        assert_eq!(wakes(4, 2, 20), [0, 1, 2, 3]);
        assert_eq!(wakes(6, 2, 2), [0, 2, 4], "so little work that it could be the probe's");
    }

    #[test]
    fn a_runtime_is_woken_while_a_worker_is_awake_and_once_after() {
        let mut rest = Rest::default();
        let parks = [Some(1), Some(3), None, None, Some(7), Some(7), Some(7)];
        let due: Vec<_> = parks.into_iter().map(|parks| rest.is_probe_due(parks)).collect();
        assert_eq!(due, [true, false, true, true, true, false, false]);
    }
}
