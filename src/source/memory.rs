//! `rust.memory.*`: what the counting allocator counted.

use crate::count::allocator::{self, CLASSES, Totals};
use crate::settings::Settings;
use crate::source::row::{Scope, counter, gauge, up_down_counter};
use crate::source::table::{Source, Table};

const SIZE_CLASS: &str = "rust.memory.size_class";

pub(crate) static TABLE: Table<Sample> = Table {
    name: "rust.memory",
    about: "What the program's global allocator is asked for. Needs `CountingAllocator` as the `#[global_allocator]`.",
    attributes: &[],
    rows: &[
        counter("rust.memory.allocated", "By", |sample: &Sample, to| to.value(sample.totals.allocated))
            .description("Bytes handed out by the global allocator since the process started.")
            .origin("`CountingAllocator`: the sizes asked for. A reallocation adds its new size.")
            .advice("Its rate is the pressure on the allocator. Falling with the same load is the gain of an optimisation."),
        counter("rust.memory.deallocated", "By", |sample: &Sample, to| to.value(sample.totals.deallocated))
            .description("Bytes given back to the global allocator since the process started.")
            .origin("`CountingAllocator`. A reallocation adds its old size.")
            .advice("Follows `rust.memory.allocated`. Lagging behind it for good is growth, or a leak."),
        counter("rust.memory.allocations", "{allocation}", |sample: &Sample, to| {
            if sample.by_size {
                CLASS.iter().zip(sample.totals.classes).for_each(|(class, count)| to.at(SIZE_CLASS, *class, count));
            } else {
                to.value(sample.totals.allocations());
            }
        })
        .opt_in_attribute(SIZE_CLASS)
        .description("Allocations made through the global allocator.")
        .origin("`CountingAllocator`: successful `alloc` and `alloc_zeroed` calls. By size, each class up to and including its bound in bytes, with `size_classes(true)`.")
        .advice("Its rate per request is what the code costs. Many small ones: reuse buffers, reserve capacity."),
        counter("rust.memory.deallocations", "{deallocation}", |sample: &Sample, to| to.value(sample.totals.deallocations))
            .description("Allocations given back to the global allocator.")
            .origin("`CountingAllocator`: `dealloc` calls.")
            .advice("Follows `rust.memory.allocations`."),
        counter("rust.memory.reallocations", "{reallocation}", |sample: &Sample, to| to.value(sample.totals.reallocations))
            .description("Allocations grown or shrunk by the global allocator.")
            .origin("`CountingAllocator`: successful `realloc` calls.")
            .advice("Many of them: vectors and strings that grow step by step. Reserve what they will need."),
        counter("rust.memory.allocation.failures", "{failure}", |sample: &Sample, to| to.value(sample.totals.failures))
            .description("Calls that the global allocator could not serve.")
            .origin("`CountingAllocator`: `alloc`, `alloc_zeroed` and `realloc` calls that returned null.")
            .advice("Any at all: the process was out of memory, or asked for an absurd amount of it."),
        up_down_counter("rust.memory.used", "By", |sample: &Sample, to| to.value(sample.totals.used()))
            .description("Bytes that are allocated and not given back.")
            .origin("`rust.memory.allocated` less `rust.memory.deallocated`, of one snapshot.")
            .advice("Rising without end is a leak. Far below the resident set: fragmentation, or what the allocator keeps for later."),
        up_down_counter("rust.memory.allocation.count", "{allocation}", |sample: &Sample, to| to.value(sample.totals.live()))
            .description("Allocations that are alive.")
            .origin("`rust.memory.allocations` less `rust.memory.deallocations`, of one snapshot.")
            .advice("Rising with `rust.memory.used` is a leak of things; standing still while that rises, things that grow."),
        gauge("rust.memory.peak", "By", |sample: &Sample, to| to.value(sample.totals.peak))
            .description("The highest number of bytes in use since the process started.")
            .origin("`CountingAllocator`: each thread reports its change every 64 KiB at the latest, so it is off by at most that for each live thread.")
            .advice("Never falls. Far above `rust.memory.used`: bursts that the limits must leave room for."),
    ],
};

/// The upper bounds of the size classes.
const CLASS: [&str; CLASSES] =
    ["16", "64", "256", "1024", "4096", "16384", "65536", "262144", "1048576", "4194304", "+Inf"];

pub(crate) struct Sample {
    totals: Totals,
    by_size: bool,
}

/// The source, if the counting allocator is the global one.
pub(crate) fn source(settings: &Settings) -> Source {
    if !allocator::is_global() {
        return TABLE.off("CountingAllocator is not the global allocator");
    }
    let by_size = settings.size_classes;
    TABLE.on(false, move |visit| visit(&Scope::default(), &Sample { totals: allocator::totals(), by_size }))
}
