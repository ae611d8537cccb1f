//! `jemalloc.*`: the statistics of jemalloc.

use crate::source::row::up_down_counter;
use crate::source::table::{Source, Table};

pub(crate) static TABLE: Table<Stats> = Table {
    name: "jemalloc",
    about: "The statistics of jemalloc, if it is the program's global allocator. Needs the feature `jemalloc`.",
    attributes: &[],
    rows: &[
        up_down_counter("jemalloc.memory.allocated", "By", |stats: &Stats, to| to.value(stats.allocated))
            .description("Bytes currently allocated from jemalloc.")
            .origin("jemalloc: `stats.allocated`.")
            .advice("Contains `rust.memory.used`, rounded up to jemalloc's size classes, and the memory of C libraries that use jemalloc."),
        up_down_counter("jemalloc.memory.active", "By", |stats: &Stats, to| to.value(stats.active))
            .description("Bytes in pages with a live allocation.")
            .origin("jemalloc: `stats.active`.")
            .advice("A value far above `jemalloc.memory.allocated` means fragmentation: a few live allocations keep whole pages."),
        up_down_counter("jemalloc.memory.resident", "By", |stats: &Stats, to| to.value(stats.resident))
            .description("Bytes of physical memory used by jemalloc, at most.")
            .origin("jemalloc: `stats.resident`.")
            .advice("A value far above `jemalloc.memory.active` means that freed pages have not returned to the system yet. Lower `dirty_decay_ms` to return them sooner."),
        up_down_counter("jemalloc.memory.mapped", "By", |stats: &Stats, to| to.value(stats.mapped))
            .description("Bytes mapped by jemalloc.")
            .origin("jemalloc: `stats.mapped`.")
            .advice("This is the memory that jemalloc holds; Go calls it `Sys`."),
        up_down_counter("jemalloc.memory.retained", "By", |stats: &Stats, to| to.value(stats.retained))
            .description("Bytes of address space kept by jemalloc without memory behind them.")
            .origin("jemalloc: `stats.retained`.")
            .advice("Costs only address space."),
        up_down_counter("jemalloc.memory.metadata", "By", |stats: &Stats, to| to.value(stats.metadata))
            .description("Bytes used by jemalloc itself.")
            .origin("jemalloc: `stats.metadata`.")
            .advice("Rises with the number of arenas and threads."),
    ],
};

/// The statistics that could be read.
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

    match read::Mibs::find() {
        _ if !read::is_global() => TABLE.off("jemalloc is not the global allocator"),
        Ok(mibs) => TABLE.on(false, move |visit| visit(&Scope::default(), &mibs.read())),
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

    use crate::source::jemalloc::Stats;

    /// The positions of the statistics in jemalloc's tree, looked up once.
    pub(super) struct Mibs {
        epoch: epoch_mib,
        allocated: stats::allocated_mib,
        active: stats::active_mib,
        resident: stats::resident_mib,
        mapped: stats::mapped_mib,
        retained: stats::retained_mib,
        metadata: stats::metadata_mib,
    }

    impl Mibs {
        pub(super) fn find() -> Result<Self> {
            Ok(Mibs {
                epoch: epoch::mib()?,
                allocated: stats::allocated::mib()?,
                active: stats::active::mib()?,
                resident: stats::resident::mib()?,
                mapped: stats::mapped::mib()?,
                retained: stats::retained::mib()?,
                metadata: stats::metadata::mib()?,
            })
        }

        /// Reads all statistics of one moment.
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

    /// Returns true if jemalloc serves the allocations of this thread.
    pub(super) fn is_global() -> bool {
        let Ok(allocated) = thread::allocatedp::read() else { return false };
        let before = allocated.get();
        drop(black_box(Box::new(0_u8)));
        allocated.get() != before
    }
}
