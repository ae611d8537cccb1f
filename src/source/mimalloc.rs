//! `mimalloc.*`: the statistics of mimalloc. It has none of the bytes currently allocated.

#![cfg_attr(feature = "mimalloc", allow(unsafe_code, reason = "calls a C library"))]

use crate::source::row::up_down_counter;
use crate::source::table::{Source, Table};

pub(crate) static TABLE: Table<Stats> = Table {
    name: "mimalloc",
    about: "The statistics of mimalloc, if it is the program's global allocator. Needs the feature `mimalloc`.",
    attributes: &[],
    rows: &[
        up_down_counter("mimalloc.memory.committed", "By", |stats: &Stats, to| to.value(stats.committed))
            .description("Bytes committed by mimalloc.")
            .origin("mimalloc: `committed` of `mi_stats_get_json`.")
            .advice("This is the memory that mimalloc holds. A value far above `rust.memory.used` means fragmentation, or freed memory that mimalloc keeps."),
        up_down_counter("mimalloc.memory.reserved", "By", |stats: &Stats, to| to.value(stats.reserved))
            .description("Bytes of address space reserved by mimalloc.")
            .origin("mimalloc: `reserved` of `mi_stats_get_json`.")
            .advice("Grows in large steps, first by 1 GiB, and costs only address space."),
    ],
};

/// The statistics that could be read.
pub(crate) struct Stats {
    committed: Option<u64>,
    reserved: Option<u64>,
}

#[cfg(feature = "mimalloc")]
pub(crate) fn source() -> Source {
    use crate::source::row::Scope;

    if !is_global() {
        return TABLE.off("mimalloc is not the global allocator");
    }
    let mut buffer = vec![0; 64 * 1024];
    TABLE.on(false, move |visit| visit(&Scope::default(), &parse(json(&mut buffer))))
}

#[cfg(not(feature = "mimalloc"))]
pub(crate) fn source() -> Source {
    TABLE.off("the feature `mimalloc` is off")
}

/// Returns true if mimalloc serves the program's allocations.
#[cfg(feature = "mimalloc")]
fn is_global() -> bool {
    let allocation = std::hint::black_box(Box::new(0_u8));
    // SAFETY: the function takes any pointer and only looks its address up.
    unsafe { libmimalloc_sys::mi_is_in_heap_region(std::ptr::from_ref(&*allocation).cast()) }
}

/// Returns the statistics as JSON, the one form that all versions of mimalloc share.
#[cfg(feature = "mimalloc")]
fn json(buffer: &mut [u8]) -> &str {
    // SAFETY: the buffer is writable for the given length, and mimalloc terminates the text with a zero within it.
    let given = unsafe { libmimalloc_sys::mi_stats_get_json(buffer.len(), buffer.as_mut_ptr().cast()) };
    match std::ffi::CStr::from_bytes_until_nul(buffer) {
        Ok(text) if !given.is_null() => text.to_str().unwrap_or_default(),
        _ => "",
    }
}

#[cfg(any(feature = "mimalloc", test))]
fn parse(json: &str) -> Stats {
    Stats { committed: current(json, "\"committed\""), reserved: current(json, "\"reserved\"") }
}

/// Returns the current value of one statistic. A negative value, which mimalloc's counters can show, counts as zero.
#[cfg(any(feature = "mimalloc", test))]
fn current(json: &str, key: &str) -> Option<u64> {
    let (_, after) = json.split_once(key)?;
    let (object, _) = after.split_once('}')?;
    let (_, value) = object.split_once("\"current\":")?;
    let value = value.trim_start();
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(value.len());
    value.get(..end)?.parse::<i64>().ok().map(|value| value.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{
  "stat_version": 4,
  "process": { "elapsed_msecs": 3, "rss_current": 1 },
  "reserved": { "total": 1073741824, "peak": 1073741824, "current": 1073741824 },
  "committed": { "total": 12, "peak": 2097152, "current": 1966080 },
  "page_committed": { "total": 0, "peak": 0, "current": 7 },
  "purged": { "total": 0, "peak": 0, "current": -4 }
}"#;

    #[test]
    fn the_current_values_are_read() {
        let stats = parse(JSON);
        assert_eq!((stats.committed, stats.reserved), (Some(1_966_080), Some(1_073_741_824)));
        assert_eq!(current(JSON, "\"purged\""), Some(0));
    }

    #[test]
    fn missing_values_are_not_reported() {
        for text in [
            "",
            "{",
            "\"committed\": {",
            "\"committed\": { \"current\": }",
            "\"committed\": { \"total\": 1 }",
        ] {
            assert_eq!(parse(text).committed, None, "{text}");
        }
    }
}
