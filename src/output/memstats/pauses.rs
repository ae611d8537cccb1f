//! Stalls in the place of the pauses of Go's garbage collector.

use crate::output::sum::{nanoseconds, total};
use crate::snapshot::Snapshot;

/// The latest 256 stalls as Go keeps its pauses: in rings, where number n is at index (n + 255) % 256.
#[derive(Clone, Debug)]
pub(crate) struct Pauses {
    count: u64,
    total: u64,
    /// The length of each, in nanoseconds.
    durations: Vec<u64>,
    /// The moment at which each ended, in nanoseconds since 1970.
    ends: Vec<u64>,
}

impl Default for Pauses {
    fn default() -> Self {
        Pauses { count: 0, total: 0, durations: vec![0; Self::LENGTH], ends: vec![0; Self::LENGTH] }
    }
}

impl Pauses {
    const LENGTH: usize = 256;

    /// Returns the number of stalls.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the sum of their lengths, in nanoseconds.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn durations(&self) -> &[u64] {
        &self.durations
    }

    pub(crate) fn ends(&self) -> &[u64] {
        &self.ends
    }

    /// The moment at which the latest one ended, 0 before the first.
    pub(crate) fn last_end(&self) -> u64 {
        self.ends.get(Self::index(self.count)).copied().unwrap_or(0)
    }

    /// Adds the stalls since the last call. New stalls share the new time evenly; without a new stall, the time
    /// belongs to the latest one, which goes on.
    pub(crate) fn update(&mut self, snapshot: &Snapshot) {
        let count = total(snapshot, "tokio.worker.stalls").unwrap_or(0).max(self.count);
        let total = nanoseconds(snapshot, "tokio.worker.stall.time").unwrap_or(0).max(self.total);
        let now = snapshot.time().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let mut time = total - self.total;
        let new = count - self.count;
        if new == 0 && count > 0 && time > 0 {
            self.extend(count, time, now);
        }
        for (done, number) in (self.count + 1..=count).enumerate() {
            let share = time / (new - done as u64);
            time -= share;
            self.clear(number);
            self.extend(number, share, now);
        }
        if count > 0 {
            self.total = total;
        }
        self.count = count;
    }

    fn clear(&mut self, number: u64) {
        if let Some(duration) = self.durations.get_mut(Self::index(number)) {
            *duration = 0;
        }
    }

    fn extend(&mut self, number: u64, time: u64, end: u64) {
        let index = Self::index(number);
        if let (Some(duration), Some(last)) = (self.durations.get_mut(index), self.ends.get_mut(index)) {
            *duration += time;
            *last = end;
        }
    }

    fn index(number: u64) -> usize {
        ((number + 255) % Self::LENGTH as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json::tests::{none, snapshot};
    use crate::snapshot::Value;

    fn stalls(second: u64, count: u64, seconds: f64) -> Snapshot {
        let count = ("tokio.worker.stalls", none(), Value::U64(count));
        snapshot(second, vec![count, ("tokio.worker.stall.time", none(), Value::F64(seconds))])
    }

    #[test]
    fn stalls_take_the_places_of_go_s_pauses() {
        let mut pauses = Pauses::default();
        pauses.update(&stalls(1, 0, 0.0));
        assert_eq!((pauses.count, pauses.total, pauses.last_end()), (0, 0, 0));
        // One that goes on growing.
        pauses.update(&stalls(2, 1, 0.5));
        pauses.update(&stalls(3, 1, 1.5));
        assert_eq!(pauses.durations[..2], [1_500_000_000, 0]);
        assert_eq!(pauses.ends[..2], [3_000_000_000, 0]);
        // Two in the same second.
        pauses.update(&stalls(4, 3, 1.75));
        assert_eq!(pauses.durations[..4], [1_500_000_000, 125_000_000, 125_000_000, 0]);
        assert_eq!((pauses.count, pauses.total), (3, 1_750_000_000));
        assert_eq!(pauses.durations.iter().sum::<u64>(), pauses.total);
        assert_eq!(pauses.last_end(), 4_000_000_000);
    }

    #[test]
    fn the_latest_256_are_kept() {
        let mut pauses = Pauses::default();
        for number in 1..=300 {
            pauses.update(&stalls(number, number, number as f64));
        }
        assert_eq!((pauses.durations.len(), pauses.ends.len()), (256, 256));
        // Number 300 is at (300 + 255) % 256, number 45 is the oldest.
        assert_eq!((pauses.ends[43], pauses.ends[44]), (300_000_000_000, 45_000_000_000));
        assert!(pauses.durations.iter().all(|pause| *pause == 1_000_000_000));
    }
}
