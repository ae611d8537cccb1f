//! The fields of Go's `runtime.MemStats`, and what each of them reads.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::pauses::Pauses;
use crate::output::sum::total;
use crate::snapshot::Snapshot;

/// Every field of Go's `runtime.MemStats`, in Go's order, and two that monitors of Go programs print beside them.
static FIELDS: &[Field] = &[
    Field::both("Alloc", |stats| stats.total("rust.memory.used")),
    Field::both("TotalAlloc", |stats| stats.total("rust.memory.allocated")),
    Field::both("Sys", |stats| stats.sys()),
    // Always 0 in Go too.
    Field::go("Lookups", Read::Zero),
    Field::both("Mallocs", |stats| stats.total("rust.memory.allocations")),
    Field::both("Frees", |stats| stats.total("rust.memory.deallocations")),
    Field::monitor("LiveObjects", |stats| stats.total("rust.memory.allocation.count")),
    Field::go("HeapAlloc", Read::Number(|stats| stats.total("rust.memory.used"))),
    Field::go("HeapSys", Read::Number(|stats| stats.sys())),
    Field::go("HeapIdle", Read::Number(|stats| Some(stats.sys()?.saturating_sub(stats.in_use()?)))),
    Field::go("HeapInuse", Read::Number(|stats| stats.in_use())),
    Field::go("HeapReleased", Read::Number(|stats| stats.total("jemalloc.memory.retained"))),
    Field::go("HeapObjects", Read::Number(|stats| stats.total("rust.memory.allocation.count"))),
    Field::go("StackInuse", Read::Zero),
    Field::go("StackSys", Read::Zero),
    Field::go("MSpanInuse", Read::Zero),
    Field::go("MSpanSys", Read::Zero),
    Field::go("MCacheInuse", Read::Zero),
    Field::go("MCacheSys", Read::Zero),
    Field::go("BuckHashSys", Read::Zero),
    Field::go("GCSys", Read::Zero),
    Field::go("OtherSys", Read::Zero),
    Field::go("NextGC", Read::Zero),
    Field::go("LastGC", Read::Number(|stats| Some(stats.pauses.last_end()))),
    Field::both("PauseTotalNs", |stats| stats.total("tokio.worker.stalls").map(|_| stats.pauses.total())),
    Field::go("PauseNs", Read::Ring(Pauses::durations)),
    Field::go("PauseEnd", Read::Ring(Pauses::ends)),
    Field::both("NumGC", |stats| stats.total("tokio.worker.stalls").map(|_| stats.pauses.count())),
    Field::go("NumForcedGC", Read::Zero),
    Field::go("GCCPUFraction", Read::Zero),
    Field::go("EnableGC", Read::False),
    Field::go("DebugGC", Read::False),
    Field::go("BySize", Read::Sizes),
    Field::monitor("NumGoroutine", |stats| stats.total("tokio.task.count")),
];

struct Field {
    key: &'static str,
    read: Read,
    /// True if Go's struct has it.
    go: bool,
    /// True if a line of the monitor has it.
    monitor: bool,
}

impl Field {
    const fn both(key: &'static str, read: Number) -> Self {
        Field { key, read: Read::Number(read), go: true, monitor: true }
    }

    const fn go(key: &'static str, read: Read) -> Self {
        Field { key, read, go: true, monitor: false }
    }

    const fn monitor(key: &'static str, read: Number) -> Self {
        Field { key, read: Read::Number(read), go: false, monitor: true }
    }
}

type Number = fn(&Stats<'_>) -> Option<u64>;

enum Read {
    Number(Number),
    Ring(fn(&Pauses) -> &[u64]),
    /// A number without a counterpart.
    Zero,
    /// A flag without a counterpart.
    False,
    /// The counts of Go's size classes, without a counterpart.
    Sizes,
}

/// A snapshot and the stalls until then.
#[derive(Clone, Copy)]
pub(crate) struct Stats<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) pauses: &'a Pauses,
}

impl Stats<'_> {
    fn total(&self, name: &str) -> Option<u64> {
        total(self.snapshot, name)
    }

    /// Memory taken from the operating system: by the allocator where it reports that, else by the process.
    fn sys(&self) -> Option<u64> {
        ["jemalloc.memory.mapped", "mimalloc.memory.committed", "process.memory.usage"]
            .iter()
            .find_map(|name| self.total(name))
    }

    fn in_use(&self) -> Option<u64> {
        self.total("jemalloc.memory.active").or_else(|| self.total("rust.memory.used"))
    }
}

/// Serializes the keys that monitors of Go programs print. A value that cannot be read is left out.
pub(crate) struct Line<'a>(pub(crate) Stats<'a>);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in FIELDS.iter().filter(|field| field.monitor) {
            if let Read::Number(read) = field.read
                && let Some(value) = read(&self.0)
            {
                map.serialize_entry(field.key, &value)?;
            }
        }
        map.end()
    }
}

/// Serializes every field of Go's struct. Consumers fail when a key is missing, so a value that cannot be read is 0.
pub(crate) struct MemStats<'a>(pub(crate) Stats<'a>);

impl Serialize for MemStats<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in FIELDS.iter().filter(|field| field.go) {
            match field.read {
                Read::Number(read) => map.serialize_entry(field.key, &read(&self.0).unwrap_or(0))?,
                Read::Ring(read) => map.serialize_entry(field.key, read(self.0.pauses))?,
                Read::Zero => map.serialize_entry(field.key, &0)?,
                Read::False => map.serialize_entry(field.key, &false)?,
                Read::Sizes => map.serialize_entry(field.key, [Size; Size::CLASSES].as_slice())?,
            }
        }
        map.end()
    }
}

/// An element of `BySize`.
#[derive(Clone, Copy)]
struct Size;

impl Size {
    const CLASSES: usize = 61;
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        ["Size", "Mallocs", "Frees"].iter().try_for_each(|key| map.serialize_entry(key, &0))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::output::json::tests::{none, snapshot};
    use crate::snapshot::Value;

    fn line(snapshot: &Snapshot) -> String {
        let mut pauses = Pauses::default();
        pauses.update(snapshot);
        serde_json::to_string(&Line(Stats { snapshot, pauses: &pauses })).unwrap()
    }

    #[test]
    fn each_key_of_a_line_has_its_documented_value() {
        let runtime = |name: &str| none().and("tokio.runtime.name", Arc::<str>::from(name));
        let of = |name, value| (name, none(), Value::U64(value));
        let points = vec![
            of("rust.memory.used", 1),
            of("rust.memory.allocated", 2),
            of("jemalloc.memory.mapped", 3),
            of("process.memory.usage", 99),
            ("rust.memory.allocations", none().and("rust.memory.size_class", "16"), Value::U64(90)),
            of("rust.memory.allocations", 4),
            of("rust.memory.deallocations", 5),
            of("rust.memory.allocation.count", 6),
            ("tokio.worker.stall.time", runtime("a"), Value::F64(0.000_000_003)),
            ("tokio.worker.stall.time", runtime("b"), Value::F64(0.000_000_004)),
            ("tokio.worker.stalls", runtime("a"), Value::U64(8)),
            ("tokio.task.count", runtime("a"), Value::U64(4)),
            ("tokio.task.count", runtime("b"), Value::U64(5)),
        ];
        let expected = concat!(
            r#"{"Alloc":1,"TotalAlloc":2,"Sys":3,"Mallocs":4,"Frees":5,"LiveObjects":6,"#,
            r#""PauseTotalNs":7,"NumGC":8,"NumGoroutine":9}"#
        );
        assert_eq!(line(&snapshot(0, points)), expected);
    }

    #[test]
    fn a_line_leaves_out_unreadable_values() {
        assert_eq!(line(&snapshot(0, vec![("process.memory.usage", none(), Value::U64(7))])), r#"{"Sys":7}"#);
    }

    #[test]
    fn the_keys_of_a_line_are_those_of_its_documentation() {
        let documented: Vec<_> = include_str!("../monitor.rs")
            .lines()
            .filter_map(|line| line.trim().strip_prefix("/// | `")?.split_once(" |"))
            .flat_map(|(keys, _)| keys.split(", ").map(|key| key.trim_matches('`').to_owned()))
            .collect();
        let mut keys: Vec<_> = FIELDS.iter().filter(|field| field.monitor).map(|field| field.key).collect();
        let mut documented: Vec<_> = documented.iter().map(String::as_str).collect();
        keys.sort_unstable();
        documented.sort_unstable();
        assert_eq!(documented, keys);
    }

    #[test]
    fn every_field_of_go_s_struct_is_there_even_without_a_source() {
        // `go doc runtime.MemStats`, Go 1.23.
        let fields = "Alloc TotalAlloc Sys Lookups Mallocs Frees HeapAlloc HeapSys HeapIdle HeapInuse HeapReleased \
                      HeapObjects StackInuse StackSys MSpanInuse MSpanSys MCacheInuse MCacheSys BuckHashSys GCSys \
                      OtherSys NextGC LastGC PauseTotalNs PauseNs PauseEnd NumGC NumForcedGC GCCPUFraction EnableGC \
                      DebugGC BySize";
        let empty = snapshot(1, Vec::new());
        let stats = Stats { snapshot: &empty, pauses: &Pauses::default() };
        let json = serde_json::to_value(MemStats(stats)).unwrap();
        let mut expected: Vec<_> = fields.split_whitespace().collect();
        expected.sort_unstable();
        let mut keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(json["PauseNs"].as_array().map(Vec::len), Some(256));
        assert_eq!(json["BySize"].as_array().map(Vec::len), Some(61));
        assert_eq!(json["BySize"][0], serde_json::json!({"Size": 0, "Mallocs": 0, "Frees": 0}));
        assert_eq!((&json["NumGC"], &json["EnableGC"]), (&0.into(), &false.into()));
    }
}
