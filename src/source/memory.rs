//! `rust.memory.*`: the counters of `CountingAllocator`.

use crate::count::allocator::{self, CLASSES, Totals};
use crate::settings::Settings;
use crate::source::row::{Scope, counter, gauge, up_down_counter};
use crate::source::table::{Source, Table};

const SIZE_CLASS: &str = "rust.memory.size_class";

pub(crate) static TABLE: Table<Sample> = Table {
    name: "rust.memory",
    about: "Memory that the program requests from its global allocator. Needs `CountingAllocator` as the `#[global_allocator]`.",
    attributes: &[],
    rows: &[
        counter("rust.memory.allocated", "By", |sample: &Sample, to| to.value(sample.totals.allocated))
            .description("Bytes allocated since the process started.")
            .origin("`CountingAllocator`: the requested sizes. A reallocation adds its new size.")
            .advice("The rate is the load on the allocator. A lower rate under the same load is the gain of an optimisation."),
        counter("rust.memory.deallocated", "By", |sample: &Sample, to| to.value(sample.totals.deallocated))
            .description("Bytes deallocated since the process started.")
            .origin("`CountingAllocator`: the sizes of freed allocations. A reallocation adds its old size.")
            .advice("Follows `rust.memory.allocated`. A gap that keeps widening is growth, or a leak."),
        counter("rust.memory.allocations", "{allocation}", |sample: &Sample, to| {
            if sample.by_size {
                CLASS.iter().zip(sample.totals.classes).for_each(|(class, count)| to.at(SIZE_CLASS, *class, count));
            } else {
                to.value(sample.totals.allocations());
            }
        })
        .opt_in_attribute(SIZE_CLASS)
        .description("Allocations made since the process started.")
        .origin("`CountingAllocator`: successful `alloc` and `alloc_zeroed` calls. With `size_classes(true)` they are reported by size; the attribute is the largest size of the class in bytes, a power of four from 16 to 4194304, or `+Inf`.")
        .advice("Compare the rate with the rate of requests. If there are many small allocations, reuse buffers and reserve capacity."),
        counter("rust.memory.deallocations", "{deallocation}", |sample: &Sample, to| to.value(sample.totals.deallocations))
            .description("Allocations freed since the process started.")
            .origin("`CountingAllocator`: `dealloc` calls.")
            .advice("Follows `rust.memory.allocations`. A gap that keeps widening is growth, or a leak."),
        counter("rust.memory.reallocations", "{reallocation}", |sample: &Sample, to| to.value(sample.totals.reallocations))
            .description("Allocations resized since the process started.")
            .origin("`CountingAllocator`: successful `realloc` calls.")
            .advice("A high rate means that vectors and strings grow step by step. Reserve their capacity beforehand."),
        counter("rust.memory.allocation.failures", "{failure}", |sample: &Sample, to| to.value(sample.totals.failures))
            .description("Allocations that failed since the process started.")
            .origin("`CountingAllocator`: `alloc`, `alloc_zeroed` and `realloc` calls that returned null.")
            .advice("Any failure means that the process was out of memory or requested an absurd amount of it."),
        up_down_counter("rust.memory.used", "By", |sample: &Sample, to| to.value(sample.totals.used()))
            .description("Bytes currently allocated.")
            .origin("`rust.memory.allocated` minus `rust.memory.deallocated`, both of the same collection.")
            .advice("A value that rises without end is a leak. A value far below `process.memory.usage` means fragmentation, or freed memory that the allocator keeps."),
        up_down_counter("rust.memory.allocation.count", "{allocation}", |sample: &Sample, to| to.value(sample.totals.live()))
            .description("Live allocations.")
            .origin("`rust.memory.allocations` minus `rust.memory.deallocations`, both of the same collection.")
            .advice("If it rises with `rust.memory.used`, objects leak. If it stays level while `rust.memory.used` rises, a few objects grow."),
        gauge("rust.memory.peak", "By", |sample: &Sample, to| to.value(sample.totals.peak))
            .description("Highest number of bytes allocated at one time since the process started.")
            .origin("`CountingAllocator`: each thread publishes its change after at most 64 KiB, so the value is off by at most 64 KiB per live thread.")
            .advice("Never falls. A value far above `rust.memory.used` shows bursts; a memory limit must leave room for them."),
    ],
};

/// The largest size of each size class, in bytes.
const CLASS: [&str; CLASSES] =
    ["16", "64", "256", "1024", "4096", "16384", "65536", "262144", "1048576", "4194304", "+Inf"];

pub(crate) struct Sample {
    totals: Totals,
    by_size: bool,
}

/// Returns the source. It is on if `CountingAllocator` is the global allocator.
pub(crate) fn source(settings: &Settings) -> Source {
    if !allocator::is_global() {
        return TABLE.off("CountingAllocator is not the global allocator");
    }
    let by_size = settings.size_classes;
    let mut totals = Totals::default();
    TABLE.on(false, move |visit| {
        totals.raise(&allocator::totals());
        visit(&Scope::default(), &Sample { totals, by_size });
    })
}
