//! `/debug/vars`, as Go's `expvar` serves it.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::json;
use crate::memstats::{pause_total_ns, put, sys, total};
use crate::metric::Snapshot;

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
