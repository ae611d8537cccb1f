//! `process.*`: what the kernel says of this process.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(unix)]
use libc::{rusage, timeval};
#[cfg(not(unix))]
use stand_in::{rusage, timeval};

use crate::settings::Settings;
use crate::source::row::{counter, counter_of_seconds, gauge_of_seconds, up_down_counter};
use crate::source::table::{Source, Table};

pub(crate) static TABLE: Table<Process> = Table {
    name: "process",
    about: "The process as the kernel sees it, as OpenTelemetry's semantic conventions name it. On Linux.",
    attributes: &[],
    rows: &[
        counter_of_seconds("process.cpu.time", |process: &Process, to| {
            to.with("user", process.usage.map(|usage| seconds(usage.ru_utime)));
            to.with("system", process.usage.map(|usage| seconds(usage.ru_stime)));
        })
        .attribute("cpu.mode")
        .description("CPU time that the process's threads have used.")
        .origin("`getrusage`: `ru_utime`, `ru_stime`.")
        .advice("Its rate is the number of CPUs in use; near `rust.cpu.count` the process is out of CPU. Much `system`: many or expensive system calls, or paging."),
        up_down_counter("process.memory.usage", "By", |process: &Process, to| {
            to.value(process.memory.map(|memory| memory.resident));
        })
        .description("Physical memory that the process occupies.")
        .origin("`/proc/self/statm`: `resident`.")
        .advice("This is what a memory limit is held against. Far above `rust.memory.used`: the allocator keeps freed memory, or something beside it uses some, such as stacks, mapped files and C libraries."),
        up_down_counter("process.memory.virtual", "By", |process: &Process, to| {
            to.value(process.memory.map(|memory| memory.size));
        })
        .description("Address space that the process has reserved.")
        .origin("`/proc/self/statm`: `size`.")
        .advice("Large numbers are normal, since reserving costs nothing. Rising without end: mappings, or stacks of threads, that are never given back."),
        up_down_counter("process.thread.count", "{thread}", |process: &Process, to| {
            to.value(process.stat.map(|stat| stat.threads));
        })
        .description("Threads of the process.")
        .origin("`/proc/self/stat`: `num_threads`.")
        .advice("Tokio's workers and its blocking pool, which grows up to 512 threads, and whatever else was started. Rising without falling: threads that never end."),
        up_down_counter("process.unix.file_descriptor.count", "{file_descriptor}", |process: &Process, to| {
            to.value(process.file_descriptors);
        })
        .description("File descriptors that the process has open.")
        .origin("The size of `/proc/self/fd`; on kernels before 6.2, which do not tell it, the number of its entries.")
        .advice("Rises with the connections. Rising without falling is a leak; at `rust.file_descriptor.limit` nothing can be opened or accepted any more."),
        counter("process.context_switches", "{context_switch}", |process: &Process, to| {
            to.with("voluntary", process.count(|usage| usage.ru_nvcsw));
            to.with("involuntary", process.count(|usage| usage.ru_nivcsw));
        })
        .attribute("process.context_switch.type")
        .description("Times that a CPU was taken from one of the process's threads, or given up by it to wait.")
        .origin("`getrusage`: `ru_nvcsw`, `ru_nivcsw`, of all threads.")
        .advice("`involuntary`: more threads want to run than there are CPUs. `voluntary`: threads wait, for work, locks or the disk."),
        counter("process.paging.faults", "{fault}", |process: &Process, to| {
            to.with("major", process.count(|usage| usage.ru_majflt));
            to.with("minor", process.count(|usage| usage.ru_minflt));
        })
        .attribute("system.paging.fault.type")
        .description("Memory accesses that the kernel had to prepare a page for, major ones from the disk.")
        .origin("`getrusage`: `ru_majflt`, `ru_minflt`.")
        .advice("`minor` rises when fresh memory is touched. `major` in steady operation: memory is short, and code or data is read from the disk again and again."),
        gauge_of_seconds("process.uptime", |process: &Process, to| to.value(process.uptime))
            .description("Time since the process was started.")
            .origin("`/proc/self/stat`: `starttime`, against the clock that counts from the boot.")
            .advice("Falls when the process has been restarted."),
        counter("process.disk.io", "By", |process: &Process, to| {
            to.with("read", process.io.map(|io| io.read));
            to.with("write", process.io.map(|io| io.written));
        })
        .attribute("disk.io.direction")
        .opt_in()
        .description("Bytes that the process made the disks read and write.")
        .origin("`/proc/self/io`: `read_bytes`, `write_bytes`. Where that file is forbidden there is no point.")
        .advice("What the page cache serves is not in it. Rising reads under constant load: the working set no longer fits into memory."),
    ],
};

/// Reads the process, where the settings and the system let it.
pub(crate) fn source(settings: &Settings) -> Source {
    if !settings.process {
        return TABLE.off("turned off");
    }
    #[cfg(target_os = "linux")]
    {
        let mut sampler = linux::Sampler::new(settings.disk_io);
        TABLE.on(settings.disk_io, move |visit| {
            visit(&crate::source::row::Scope::default(), &sampler.sample())
        })
    }
    #[cfg(not(target_os = "linux"))]
    TABLE.off("only read on Linux")
}

/// What the rows read. What cannot be had is `None`.
pub(crate) struct Process {
    usage: Option<rusage>,
    memory: Option<Memory>,
    stat: Option<Stat>,
    file_descriptors: Option<u64>,
    uptime: Option<f64>,
    io: Option<Io>,
}

impl Process {
    fn count(&self, field: impl Fn(&rusage) -> std::ffi::c_long) -> Option<u64> {
        field(self.usage.as_ref()?).try_into().ok()
    }
}

fn seconds(time: timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

/// `/proc/self/statm`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    size: u64,
    resident: u64,
}

/// `/proc/self/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    threads: u64,
    /// In ticks since the boot.
    start: u64,
}

/// `/proc/self/io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Io {
    read: u64,
    written: u64,
}

/// For the rows to compile where libc has no such types. There is never a value of them.
#[cfg(not(unix))]
#[allow(non_camel_case_types, reason = "libc's names")]
mod stand_in {
    use std::ffi::c_long;

    #[derive(Clone, Copy)]
    pub(crate) struct timeval {
        pub(crate) tv_sec: i64,
        pub(crate) tv_usec: i64,
    }

    #[derive(Clone, Copy)]
    pub(crate) struct rusage {
        pub(crate) ru_utime: timeval,
        pub(crate) ru_stime: timeval,
        pub(crate) ru_minflt: c_long,
        pub(crate) ru_majflt: c_long,
        pub(crate) ru_nvcsw: c_long,
        pub(crate) ru_nivcsw: c_long,
    }
}
