//! The rows of the limits.

#[cfg(target_os = "linux")]
use super::linux::Sampler;
#[cfg(not(target_os = "linux"))]
use super::others::Sampler;
use super::sample::Limits;
use crate::source::row::{Scope, counter, counter_of_seconds, up_down_counter};
use crate::source::table::{Source, Table};

pub(crate) static TABLE: Table<Limits> = Table {
    name: "limits",
    about: "The limits of the process: control groups (version 1, 2 or both), CPU affinity and resource limits. \
            Each collection reads them again, since all of them can change while the process runs. Linux has all of them; other systems have \
            `rust.cpu.count`, and Unix systems `rust.file_descriptor.limit`, compiled but not tested.",
    attributes: &[],
    rows: &[
        up_down_counter("rust.memory.limit", "By", |limits: &Limits, to| to.value(limits.memory))
            .description("Bytes of memory that the process's control group may use.")
            .origin("The smallest `memory.max` or `memory.high` of the process's control group and those above it, as far as they can be seen; version 1: `hierarchical_memory_limit`. No point if there is no limit.")
            .advice("The kernel kills the process above this limit. Compare `process.memory.usage` with it; the group's other processes and its page cache count too."),
        up_down_counter("rust.cpu.count", "{cpu}", |limits: &Limits, to| to.value(limits.cpus))
            .description("CPUs that the process may use.")
            .origin("The main thread's affinity, or the control groups' quota in whole CPUs if that is lower, but at least 1. `std::thread::available_parallelism`, Tokio's default number of workers, follows the same rule, and is the number on other systems.")
            .advice("This is the upper limit of the rate of `process.cpu.time`. Tokio does not follow a change while the process runs."),
        counter_of_seconds("rust.cpu.throttled.time", |limits: &Limits, to| {
            to.value(limits.throttled_seconds);
        })
        .description("Seconds for which the CPU quota stopped the process's control group.")
        .origin("`throttled_usec` in `cpu.stat`, summed over those of the process's control groups that have a quota; version 1: `throttled_time`. The kernel sums over CPUs. No point if there is no quota.")
        .advice("A rising value means latency: no thread of the process runs for up to a tenth of a second. Raise the quota, or run no more threads than the quota has CPUs."),
        counter("rust.cpu.throttles", "{throttle}", |limits: &Limits, to| {
            to.value(limits.throttles);
        })
        .description("Periods in which the CPU quota ran out.")
        .origin("`nr_throttled` in `cpu.stat`, as for `rust.cpu.throttled.time`.")
        .advice("There are usually ten periods a second. The rate divided by ten is the share of time in which the quota delays requests."),
        up_down_counter("rust.file_descriptor.limit", "{file_descriptor}", |limits: &Limits, to| {
            to.value(limits.file_descriptors);
        })
        .description("Highest number of open file descriptors that the process may have.")
        .origin("`getrlimit`: the soft limit of `RLIMIT_NOFILE`. No point if there is no limit.")
        .advice("At this number of `process.unix.file_descriptor.count` the process can open and accept nothing more."),
    ],
};

/// Returns the source.
pub(crate) fn source() -> Source {
    let mut sampler = Sampler::new();
    TABLE.on(false, move |visit| visit(&Scope::default(), &sampler.sample()))
}
