//! `/debug/vars`, as Go's `expvar` serves it.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::output::json;
use crate::output::memstats::{pause_total_ns, put, sys, total};
use crate::snapshot::Snapshot;

pub(super) struct Vars<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) pauses: &'a Pauses,
    pub(super) command_line: bool,
}

impl Serialize for Vars<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let shown = if self.command_line { usize::MAX } else { 0 };
        let arguments =
            std::env::args_os().take(shown).map(|argument| argument.to_string_lossy().into_owned());
        map.serialize_entry("cmdline", &arguments.collect::<Vec<_>>())?;
        map.serialize_entry("memstats", &MemStats(self))?;
        json::entries(self.snapshot, &mut map)?;
        map.end()
    }
}

/// Those fields of Go's `runtime.MemStats` that have a counterpart here, and those that its consumers fail without.
struct MemStats<'a>(&'a Vars<'a>);

impl Serialize for MemStats<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let MemStats(Vars { snapshot, pauses, .. }) = self;
        let used = total(snapshot, "rust.memory.used");
        let in_use = total(snapshot, "jemalloc.memory.active").or(used);
        let sys = sys(snapshot);
        let mut map = serializer.serialize_map(None)?;
        put(&mut map, "Alloc", used)?;
        put(&mut map, "TotalAlloc", total(snapshot, "rust.memory.allocated"))?;
        put(&mut map, "Sys", sys)?;
        put(&mut map, "Mallocs", total(snapshot, "rust.memory.allocations"))?;
        put(&mut map, "Frees", total(snapshot, "rust.memory.deallocations"))?;
        put(&mut map, "HeapAlloc", used)?;
        put(&mut map, "HeapSys", sys)?;
        put(&mut map, "HeapInuse", in_use)?;
        put(&mut map, "HeapIdle", sys.zip(in_use).map(|(sys, in_use)| sys.saturating_sub(in_use)))?;
        // What is known to have been given back.
        let released = total(snapshot, "jemalloc.memory.retained");
        put(&mut map, "HeapReleased", Some(released.unwrap_or(0)))?;
        put(&mut map, "HeapObjects", total(snapshot, "rust.memory.allocation.count"))?;
        // Always 0 in Go too.
        put(&mut map, "Lookups", Some(0))?;
        put(&mut map, "PauseTotalNs", Some(pauses.total))?;
        put(&mut map, "NumGC", Some(pauses.count))?;
        map.serialize_entry("PauseNs", &pauses.recent)?;
        map.serialize_entry("PauseEnd", &pauses.ends)?;
        map.end()
    }
}

/// The stalls, where Go has the pauses of its garbage collector: in rings of 256, of which number n is at (n + 255) % 256.
#[derive(Clone)]
pub(super) struct Pauses {
    count: u64,
    total: u64,
    /// In nanoseconds.
    recent: Vec<u64>,
    /// In nanoseconds since 1970.
    ends: Vec<u64>,
}

impl Default for Pauses {
    fn default() -> Self {
        Pauses { count: 0, total: 0, recent: vec![0; Self::KEPT], ends: vec![0; Self::KEPT] }
    }
}

impl Pauses {
    const KEPT: usize = 256;

    /// Takes in what has been added. What several stalls took since the last time is shared out evenly; what was added
    /// without a new one, to the last.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let count = total(snapshot, "tokio.worker.stalls").unwrap_or(0).max(self.count);
        let total = pause_total_ns(snapshot).unwrap_or(0).max(self.total);
        let now = snapshot.time().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let new = count - self.count;
        let mut time = total - self.total;
        if new == 0 && count > 0 && time > 0 {
            self.add(count, time, now);
        }
        for (ahead, number) in (self.count + 1..=count).enumerate() {
            let share = time / (new - ahead as u64);
            time -= share;
            self.add(number, 0, now);
            if let Some(place) = self.recent.get_mut(Self::place(number)) {
                *place = share;
            }
        }
        if count > 0 {
            self.total = total;
        }
        self.count = count;
    }

    fn add(&mut self, number: u64, time: u64, end: u64) {
        let place = Self::place(number);
        if let (Some(recent), Some(last)) = (self.recent.get_mut(place), self.ends.get_mut(place)) {
            *recent += time;
            *last = end;
        }
    }

    fn place(number: u64) -> usize {
        ((number + 255) % Self::KEPT as u64) as usize
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
        pauses.follow(&stalls(1, 0, 0.0));
        assert_eq!((pauses.count, pauses.total), (0, 0));
        // One that goes on growing.
        pauses.follow(&stalls(2, 1, 0.5));
        pauses.follow(&stalls(3, 1, 1.5));
        assert_eq!(pauses.recent[..2], [1_500_000_000, 0]);
        assert_eq!(pauses.ends[..2], [3_000_000_000, 0]);
        // Two in the same second.
        pauses.follow(&stalls(4, 3, 1.75));
        assert_eq!(pauses.recent[..4], [1_500_000_000, 125_000_000, 125_000_000, 0]);
        assert_eq!((pauses.count, pauses.total), (3, 1_750_000_000));
        assert_eq!(pauses.recent.iter().sum::<u64>(), pauses.total);
    }

    #[test]
    fn the_latest_256_are_kept() {
        let mut pauses = Pauses::default();
        for number in 1..=300 {
            pauses.follow(&stalls(number, number, number as f64));
        }
        assert_eq!((pauses.recent.len(), pauses.ends.len()), (256, 256));
        // Number 300 is at (300 + 255) % 256, number 45 is the oldest.
        assert_eq!((pauses.ends[43], pauses.ends[44]), (300_000_000_000, 45_000_000_000));
        assert!(pauses.recent.iter().all(|pause| *pause == 1_000_000_000));
    }

    #[test]
    fn without_a_runtime_there_was_no_pause() {
        let mut pauses = Pauses::default();
        pauses.follow(&snapshot(1, Vec::new()));
        let vars = Vars { snapshot: &snapshot(1, Vec::new()), pauses: &pauses, command_line: false };
        let json = serde_json::to_value(&vars).unwrap();
        // Datadog's check fails without these two.
        assert_eq!(json["memstats"]["NumGC"], 0);
        assert_eq!(json["memstats"]["PauseNs"].as_array().map(Vec::len), Some(256));
        assert_eq!(json["memstats"].get("Alloc"), None, "what cannot be read is left out");
    }
}
