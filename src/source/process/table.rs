//! The rows of `process.*`.

use super::sample::Process;
use crate::settings::Settings;
use crate::source::row::{Scope, counter, counter_of_seconds, gauge_of_seconds, up_down_counter};
use crate::source::table::{Source, Table};

pub(crate) static TABLE: Table<Process> = Table {
    name: "process",
    about: "The kernel's statistics of the process, named by OpenTelemetry's semantic conventions. Linux has all of \
            them. macOS and Windows have what their rows say, compiled but not tested; other Unix systems have what `getrusage` returns.",
    attributes: &[],
    rows: &[
        counter_of_seconds("process.cpu.time", |process: &Process, to| {
            to.with("user", process.cpu.map(|cpu| cpu.user));
            to.with("system", process.cpu.map(|cpu| cpu.system));
        })
        .attribute("cpu.mode")
        .description("Seconds of CPU time used by all threads of the process.")
        .origin("`getrusage`: `ru_utime` as `user`, `ru_stime` as `system`. Windows: `GetProcessTimes`.")
        .advice("The rate is the number of CPUs in use; near `rust.cpu.count` the process is short of CPU. A high share of `system` means many or expensive system calls, or paging."),
        up_down_counter("process.memory.usage", "By", |process: &Process, to| {
            to.value(process.memory.map(|memory| memory.resident));
        })
        .description("Bytes of physical memory used by the process.")
        .origin("`/proc/self/statm`: `resident`. macOS: `pti_resident_size` of `proc_pidinfo`. Windows: `WorkingSetSize`.")
        .advice("A memory limit applies to this value. A value far above `rust.memory.used` means that the allocator keeps freed memory, or that stacks, mapped files or C libraries use some."),
        up_down_counter("process.memory.virtual", "By", |process: &Process, to| {
            to.value(process.memory.map(|memory| memory.size));
        })
        .description("Bytes of address space reserved by the process.")
        .origin("`/proc/self/statm`: `size`. macOS: `pti_virtual_size` of `proc_pidinfo`. Windows: `PagefileUsage`, the bytes that the system has promised.")
        .advice("Large values are normal, since reserved address space costs nothing. A value that rises without end means that mappings or threads leak."),
        up_down_counter("process.thread.count", "{thread}", |process: &Process, to| {
            to.value(process.threads);
        })
        .description("Threads of the process.")
        .origin("The links of the directory `/proc/self/task`, without the two that each directory has. Where it has no others, `num_threads` in `/proc/self/stat`. macOS: `pti_threadnum` of `proc_pidinfo`.")
        .advice("Contains Tokio's workers, its blocking pool of up to 512 threads, and all others. A value that rises and never falls means threads that never end."),
        up_down_counter("process.unix.file_descriptor.count", "{file_descriptor}", |process: &Process, to| {
            to.value(process.file_descriptors);
        })
        .description("Open file descriptors of the process.")
        .origin("The size of `/proc/self/fd`. On kernels before 6.2, where the size is 0, the number of its entries. The library itself keeps at most 16 files of `/proc` and of control groups open. macOS: the entries of `/dev/fd`.")
        .advice("Rises with the number of connections. A value that rises and never falls is a leak. At `rust.file_descriptor.limit` the process can open and accept nothing more."),
        counter("process.context_switches", "{context_switch}", |process: &Process, to| {
            to.with("voluntary", process.context_switches.map(|switches| switches.voluntary));
            to.with("involuntary", process.context_switches.map(|switches| switches.involuntary));
        })
        .attribute("process.context_switch.type")
        .description("Context switches of all threads of the process.")
        .origin("`getrusage`: `ru_nvcsw` as `voluntary`, `ru_nivcsw` as `involuntary`.")
        .advice("`involuntary` rises when more threads want to run than there are CPUs. `voluntary` rises when threads wait for work, locks or the disk."),
        counter("process.paging.faults", "{fault}", |process: &Process, to| {
            to.with("major", process.faults.map(|faults| faults.major));
            to.with("minor", process.faults.map(|faults| faults.minor));
        })
        .attribute("system.paging.fault.type")
        .description("Page faults of the process; major ones read from the disk.")
        .origin("`getrusage`: `ru_majflt` as `major`, `ru_minflt` as `minor`.")
        .advice("`minor` rises when the process touches fresh memory. `major` that rises in steady operation means that memory is short: the kernel reads code or data from the disk again and again."),
        gauge_of_seconds("process.uptime", |process: &Process, to| to.value(process.uptime))
            .description("Seconds since the process started.")
            .origin("`CLOCK_BOOTTIME` minus `starttime` in `/proc/self/stat`. macOS and Windows: the start that the system has noted, by the wall clock, and from the first reading on a clock that no one sets.")
            .advice("A value that falls shows a restart."),
        counter("process.disk.io", "By", |process: &Process, to| {
            to.with("read", process.io.map(|io| io.read));
            to.with("write", process.io.map(|io| io.written));
        })
        .attribute("disk.io.direction")
        .opt_in()
        .description("Bytes that the process made the disks read or write.")
        .origin("`/proc/self/io`: `read_bytes` as `read`, `write_bytes` as `write`. No point if that file is forbidden. macOS: `proc_pid_rusage`.")
        .advice("Reads from the page cache are not included. If `read` rises under constant load, the working set no longer fits into memory."),
    ],
};

/// Returns the source. It is on if the settings ask for it.
pub(crate) fn source(settings: &Settings) -> Source {
    #[cfg(target_os = "linux")]
    use super::linux::Sampler;
    #[cfg(target_os = "macos")]
    use super::macos::Sampler;
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "macos"))))]
    use super::posix::Sampler;
    #[cfg(windows)]
    use super::windows::Sampler;

    if !settings.process {
        return TABLE.off("turned off");
    }
    #[cfg(any(unix, windows))]
    {
        let mut sampler = Sampler::new(settings.disk_io);
        TABLE.on(settings.disk_io, move |visit| visit(&Scope::default(), &sampler.sample()))
    }
    #[cfg(not(any(unix, windows)))]
    TABLE.off("not supported on this system")
}
