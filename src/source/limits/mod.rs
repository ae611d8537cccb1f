//! `rust.memory.limit`, `rust.cpu.*`, `rust.file_descriptor.limit`: what the process may use.

#[cfg(target_os = "linux")]
mod cgroup;

use std::time::Duration;

use crate::source::row::{counter, counter_of_seconds, up_down_counter};
use crate::source::table::{Source, Table};

pub(crate) static TABLE: Table<Limits> = Table {
    name: "limits",
    about: "What the process may use: its control groups (version 1, 2 or both), its CPU affinity, its resource limits. \
            They are read anew each time, since all of them can be changed while the process runs. On Linux.",
    attributes: &[],
    rows: &[
        up_down_counter("rust.memory.limit", "By", |limits: &Limits, to| to.value(limits.memory))
            .description("Memory that the process's control group may occupy.")
            .origin("The smallest `memory.max` of the process's control group and those above it, as far as they can be seen; version 1: `hierarchical_memory_limit`. No point where there is no limit.")
            .advice("At this amount of memory the kernel kills: hold `process.memory.usage` against it, and remember the group's other processes and its page cache."),
        up_down_counter("rust.cpu.count", "{cpu}", |limits: &Limits, to| to.value(limits.cpus))
            .description("CPUs that the process may use.")
            .origin("The main thread's affinity, or the control groups' quota in whole CPUs where that is less, but at least 1: as `std::thread::available_parallelism`, Tokio's default number of workers, has it.")
            .advice("The most that the rate of `process.cpu.time` can come to. A change while the process runs does not change Tokio's number of workers."),
        counter_of_seconds("rust.cpu.throttled.time", |limits: &Limits, to| {
            to.value(limits.throttling.map(|throttling| throttling.time.as_secs_f64()));
        })
        .description("Time that the CPU quota kept the process's control group from running.")
        .origin("`cpu.stat` of those of the process's control groups that have a quota, added up over groups and CPUs: `throttled_usec`; version 1: `throttled_time`. No point where there is no quota.")
        .advice("Rising means latency: for up to a tenth of a second nothing of the process runs. Raise the quota, or run no more threads than it has CPUs."),
        counter("rust.cpu.throttles", "{throttle}", |limits: &Limits, to| {
            to.value(limits.throttling.map(|throttling| throttling.count));
        })
        .description("Periods in which the CPU quota was used up before their end.")
        .origin("`cpu.stat`, as for `rust.cpu.throttled.time`: `nr_throttled`.")
        .advice("Its rate over the periods, of which there are ten a second as a rule, is how often requests are held up by the quota."),
        up_down_counter("rust.file_descriptor.limit", "{file_descriptor}", |limits: &Limits, to| {
            to.value(limits.file_descriptors);
        })
        .description("File descriptors that the process may have open.")
        .origin("`getrlimit`: the soft limit of `RLIMIT_NOFILE`. No point where there is no limit.")
        .advice("When `process.unix.file_descriptor.count` gets there, nothing can be opened or accepted any more."),
    ],
};

/// Reads the limits, where the system has them.
pub(crate) fn source() -> Source {
    #[cfg(target_os = "linux")]
    {
        let mut cgroups = cgroup::Cgroups::at("/");
        TABLE.on(false, move |visit| {
            visit(&crate::source::row::Scope::default(), &Limits::sample(&mut cgroups))
        })
    }
    #[cfg(not(target_os = "linux"))]
    TABLE.off("only read on Linux")
}

/// What the rows read. What is unlimited or cannot be had is `None`.
pub(crate) struct Limits {
    memory: Option<u64>,
    cpus: Option<u64>,
    throttling: Option<Throttling>,
    file_descriptors: Option<u64>,
}

/// What a CPU quota has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Throttling {
    count: u64,
    time: Duration,
}

#[cfg(target_os = "linux")]
impl Limits {
    fn sample(cgroups: &mut cgroup::Cgroups) -> Self {
        use super::linux::calls as sys;

        cgroups.refresh();
        let (quota, throttling) = cgroups.cpu();
        let cpus =
            sys::affinity().or_else(|| std::thread::available_parallelism().ok()?.get().try_into().ok());
        Limits {
            memory: cgroups.memory_limit(),
            cpus: cpus.map(|cpus| quota.map_or(cpus, |quota| cpus.min(whole_cpus(quota)))),
            throttling,
            file_descriptors: sys::file_descriptor_limit(),
        }
    }
}

/// Whole, because that is what a number of threads is derived from.
#[cfg(target_os = "linux")]
fn whole_cpus(quota: f64) -> u64 {
    (quota as u64).max(1)
}
