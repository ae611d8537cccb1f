//! `jemalloc.*`: jemalloc's own figures.

use crate::source::row::up_down_counter;
use crate::source::table::{Source, Table};

pub(crate) static TABLE: Table<Stats> = Table {
    name: "jemalloc",
    about: "jemalloc's own figures, where it is the program's global allocator. Needs the feature `jemalloc`.",
    attributes: &[],
    rows: &[
        up_down_counter("jemalloc.memory.allocated", "By", |stats: &Stats, to| to.value(stats.allocated))
            .description("Bytes that the program has allocated from jemalloc.")
            .origin("jemalloc: `stats.allocated`.")
            .advice("`rust.memory.used`, rounded up to jemalloc's size classes, and what C libraries beside it take."),
        up_down_counter("jemalloc.memory.active", "By", |stats: &Stats, to| to.value(stats.active))
            .description("Bytes in pages from which something is allocated.")
            .origin("jemalloc: `stats.active`.")
            .advice("Far above `jemalloc.memory.allocated`: fragmentation, pages held by a few survivors."),
        up_down_counter("jemalloc.memory.resident", "By", |stats: &Stats, to| to.value(stats.resident))
            .description("Bytes in physical memory that jemalloc occupies, at most.")
            .origin("jemalloc: `stats.resident`.")
            .advice("Far above `jemalloc.memory.active`: freed pages that have not gone back to the system yet. Lower `dirty_decay_ms` if they should."),
        up_down_counter("jemalloc.memory.mapped", "By", |stats: &Stats, to| to.value(stats.mapped))
            .description("Bytes in the extents that jemalloc has mapped.")
            .origin("jemalloc: `stats.mapped`.")
            .advice("What jemalloc has of the system, Go's `Sys`."),
        up_down_counter("jemalloc.memory.retained", "By", |stats: &Stats, to| to.value(stats.retained))
            .description("Bytes of address space that jemalloc keeps for later without memory behind them.")
            .origin("jemalloc: `stats.retained`.")
            .advice("Costs address space alone."),
        up_down_counter("jemalloc.memory.metadata", "By", |stats: &Stats, to| to.value(stats.metadata))
            .description("Bytes that jemalloc uses for itself.")
            .origin("jemalloc: `stats.metadata`.")
            .advice("Rises with the number of arenas and of threads."),
    ],
};

/// What could be read.
pub(crate) struct Stats {
    allocated: Option<u64>,
    active: Option<u64>,
    resident: Option<u64>,
    mapped: Option<u64>,
    retained: Option<u64>,
    metadata: Option<u64>,
}

#[cfg(feature = "jemalloc")]
pub(crate) fn source() -> Source {
    use crate::source::row::Scope;

    match read::Names::find() {
        _ if !read::is_global() => TABLE.off("jemalloc is not the global allocator"),
        Ok(names) => TABLE.on(false, move |visit| visit(&Scope::default(), &names.read())),
        Err(_) => TABLE.off("jemalloc was built without statistics"),
    }
}

#[cfg(not(feature = "jemalloc"))]
pub(crate) fn source() -> Source {
    TABLE.off("the feature `jemalloc` is off")
}

#[cfg(feature = "jemalloc")]
mod read {
    use std::hint::black_box;

    use tikv_jemalloc_ctl::{Result, epoch, epoch_mib, stats, thread};

    use super::Stats;

    /// The figures' places in jemalloc's tree, looked up once.
    pub(super) struct Names {
        epoch: epoch_mib,
        allocated: stats::allocated_mib,
        active: stats::active_mib,
        resident: stats::resident_mib,
        mapped: stats::mapped_mib,
        retained: stats::retained_mib,
        metadata: stats::metadata_mib,
    }

    impl Names {
        pub(super) fn find() -> Result<Self> {
            Ok(Names {
                epoch: epoch::mib()?,
                allocated: stats::allocated::mib()?,
                active: stats::active::mib()?,
                resident: stats::resident::mib()?,
                mapped: stats::mapped::mib()?,
                retained: stats::retained::mib()?,
                metadata: stats::metadata::mib()?,
            })
        }

        /// All figures of one moment.
        pub(super) fn read(&self) -> Stats {
            let fresh = self.epoch.advance().is_ok();
            let value = |value: Result<usize>| value.ok().filter(|_| fresh).map(|value| value as u64);
            Stats {
                allocated: value(self.allocated.read()),
                active: value(self.active.read()),
                resident: value(self.resident.read()),
                mapped: value(self.mapped.read()),
                retained: value(self.retained.read()),
                metadata: value(self.metadata.read()),
            }
        }
    }

    /// Whether an allocation of this thread is one of jemalloc's.
    pub(super) fn is_global() -> bool {
        let Ok(allocated) = thread::allocatedp::read() else { return false };
        let before = allocated.get();
        drop(black_box(Box::new(0_u8)));
        allocated.get() != before
    }
}
