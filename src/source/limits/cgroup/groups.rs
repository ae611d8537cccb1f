//! Reads the limits and the throttling of the groups that were looked up.

use std::path::PathBuf;
use std::time::Duration;

use super::lookup::{Controller, Group, Version};
use crate::source::linux::files::{FileReader, OpenFile, number, number_of};

/// The throttling by CPU quotas so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Throttling {
    pub(crate) count: u64,
    pub(crate) time: Duration,
}

/// The groups that limit this process's memory and CPU time.
pub(crate) struct Cgroups {
    /// The root of the file system: `/`, except in tests.
    root: PathBuf,
    proc_self: PathBuf,
    reader: FileReader,
    membership: OpenFile,
    /// The content of `/proc/self/cgroup` when the groups were looked up.
    memberships: Vec<u8>,
    pub(super) memory: MemoryFiles,
    /// The files of the process's own group and of the groups above it.
    pub(super) cpu: Vec<CpuFiles>,
}

/// The files with the limits of memory.
pub(super) enum MemoryFiles {
    /// Each holds one limit, of the process's own group or of one above it.
    V2(Vec<OpenFile>),
    V1 {
        statistics: OpenFile,
        limit: OpenFile,
    },
}

/// The files of one group with its quota of CPU time.
pub(super) enum CpuFiles {
    V2 { quota: OpenFile, statistics: OpenFile },
    V1 { quota: OpenFile, period: OpenFile, statistics: OpenFile },
}

impl Cgroups {
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let proc_self = root.join("proc/self");
        Cgroups {
            membership: OpenFile::new(proc_self.join("cgroup")),
            proc_self,
            root,
            reader: FileReader::new(),
            memberships: Vec::new(),
            memory: MemoryFiles::V2(Vec::new()),
            cpu: Vec::new(),
        }
    }

    /// Looks the groups up again if the process was moved since the last call.
    pub(crate) fn refresh(&mut self) {
        self.reader.refresh();
        let memberships = self.reader.read_open(&mut self.membership).unwrap_or_default();
        if memberships != self.memberships {
            self.memberships.clear();
            self.memberships.extend_from_slice(memberships);
            // A separate reader: the buffer of `self.reader` would keep the length of this long file.
            let mut reader = FileReader::new();
            let mounts = reader.read(&self.proc_self, "mountinfo").unwrap_or_default();
            let find = |controller| Group::find(controller, &self.memberships, mounts, &self.root);
            self.memory = MemoryFiles::of(find(Controller::Memory));
            self.cpu = CpuFiles::of(find(Controller::Cpu));
        }
    }

    /// Returns the files of which there was a warning.
    #[cfg(test)]
    pub(super) fn malformed(&self) -> impl Iterator<Item = &std::path::Path> {
        self.reader.malformed()
    }

    /// Returns the id of the process.
    pub(crate) fn process(&self) -> u32 {
        self.reader.process()
    }

    pub(crate) fn memory_limit(&mut self) -> Option<u64> {
        match &mut self.memory {
            MemoryFiles::V2(limits) => {
                limits.iter_mut().filter_map(|limit| self.reader.parsed(limit, memory_max)?).min()
            }
            // The kernel has already taken the groups above into account, even those that a container cannot see.
            MemoryFiles::V1 { statistics, limit } => {
                let hierarchical = self
                    .reader
                    .read_open(statistics)
                    .and_then(|text| number_of(text, "hierarchical_memory_limit"));
                hierarchical
                    .or_else(|| self.reader.parsed(limit, number))
                    .filter(|limit| *limit < NO_MEMORY_LIMIT)
            }
        }
    }

    /// Returns the smallest quota in CPUs, and the throttling by all quotas.
    pub(crate) fn cpu(&mut self) -> (Option<f64>, Option<Throttling>) {
        let (mut smallest, mut throttling) = (None::<f64>, None::<Throttling>);
        for files in &mut self.cpu {
            let Some(quota) = files.quota(&mut self.reader) else { continue };
            smallest = Some(smallest.map_or(quota, |smallest| smallest.min(quota)));
            if let Some(own) = files.throttling(&mut self.reader) {
                let sum = throttling.get_or_insert_default();
                sum.count = sum.count.saturating_add(own.count);
                sum.time = sum.time.saturating_add(own.time);
            }
        }
        (smallest, throttling)
    }
}

impl MemoryFiles {
    fn of(group: Option<Group>) -> Self {
        let Some(group) = group else { return MemoryFiles::V2(Vec::new()) };
        match group.version {
            Version::V2 => {
                let limits = group
                    .levels()
                    .flat_map(|level| MEMORY_LIMITS.map(|limit| OpenFile::new(level.join(limit))));
                MemoryFiles::V2(limits.collect())
            }
            Version::V1 => MemoryFiles::V1 {
                statistics: OpenFile::new(group.own().join("memory.stat")),
                limit: OpenFile::new(group.own().join("memory.limit_in_bytes")),
            },
        }
    }
}

impl CpuFiles {
    fn of(group: Option<Group>) -> Vec<Self> {
        let files = |group: &Group| {
            let levels = group.levels().map(|level| {
                let file = |name| OpenFile::new(level.join(name));
                let statistics = file("cpu.stat");
                match group.version {
                    Version::V2 => CpuFiles::V2 { quota: file("cpu.max"), statistics },
                    Version::V1 => {
                        let (quota, period) = (file("cpu.cfs_quota_us"), file("cpu.cfs_period_us"));
                        CpuFiles::V1 { quota, period, statistics }
                    }
                }
            });
            levels.collect()
        };
        group.as_ref().map(files).unwrap_or_default()
    }

    /// Returns the quota of the group, in CPUs.
    fn quota(&mut self, reader: &mut FileReader) -> Option<f64> {
        match self {
            CpuFiles::V2 { quota, .. } => reader.parsed(quota, cpu_max)?,
            CpuFiles::V1 { quota, period, .. } => {
                let quota = reader.parsed(quota, cfs_quota)??;
                ratio(quota, reader.parsed(period, number)?)
            }
        }
    }

    fn throttling(&mut self, reader: &mut FileReader) -> Option<Throttling> {
        let (statistics, version) = match self {
            CpuFiles::V2 { statistics, .. } => (statistics, Version::V2),
            CpuFiles::V1 { statistics, .. } => (statistics, Version::V1),
        };
        throttled(reader.read_open(statistics)?, version)
    }
}

/// Above the first one the kernel kills. Above the second one it throttles and reclaims, so that the process stands
/// almost still before it comes to the first.
const MEMORY_LIMITS: [&str; 2] = ["memory.max", "memory.high"];

/// The smallest value by which version 1 says that there is no limit: the largest number of bytes in whole pages that an
/// `i64` holds. Pages have at most 64 KiB.
const NO_MEMORY_LIMIT: u64 = i64::MAX as u64 & !0xffff;

/// The parsed content of a file with a limit: `None` if there is no limit.
type Limit<T> = Option<T>;

/// Parses a number, or `max` for no limit.
fn memory_max(text: &[u8]) -> Option<Limit<u64>> {
    if text.trim_ascii() == b"max" { Some(None) } else { number(text).map(Some) }
}

/// Parses `quota period`, in which `max` means no quota.
fn cpu_max(text: &[u8]) -> Option<Limit<f64>> {
    let (quota, period) = std::str::from_utf8(text).ok()?.trim_ascii().split_once(' ')?;
    let period = period.parse().ok()?;
    if quota == "max" { Some(None) } else { Some(ratio(quota.parse().ok()?, period)) }
}

/// Parses a number, or -1 for no quota.
fn cfs_quota(text: &[u8]) -> Option<Limit<u64>> {
    if text.trim_ascii() == b"-1" { Some(None) } else { number(text).map(Some) }
}

fn ratio(quota: u64, period: u64) -> Option<f64> {
    (period > 0).then(|| quota as f64 / period as f64)
}

pub(super) fn throttled(cpu_stat: &[u8], version: Version) -> Option<Throttling> {
    let time = match version {
        Version::V2 => Duration::from_micros(number_of(cpu_stat, "throttled_usec")?),
        Version::V1 => Duration::from_nanos(number_of(cpu_stat, "throttled_time")?),
    };
    Some(Throttling { count: number_of(cpu_stat, "nr_throttled")?, time })
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::util::fuzz::{edited, run};

    #[test]
    fn any_limit_of_memory_is_read_as_written_or_refused() {
        run(4_000, 1 << 18, |u| {
            let text = edited(u, &[b"max\n", b"536870912\n", b"18446744073709551615\n"])?;
            let limit = memory_max(&text);
            if let Some(Some(limit)) = limit {
                assert_eq!(String::from_utf8_lossy(text.trim_ascii()).parse(), Ok(limit));
            }
            Ok(limit.is_some())
        });
    }

    #[test]
    fn any_quota_is_a_finite_number_of_cpus_or_refused() {
        const FILES: [&[u8]; 5] =
            [b"max 100000\n", b"150000 100000\n", b"18446744073709551615 1\n", b"-1\n", b"50000\n"];
        run(4_000, 1 << 18, |u| {
            let text = edited(u, &FILES)?;
            let v2 = cpu_max(&text);
            let v1 = cfs_quota(&text).flatten().zip(number(&edited(u, &[b"100000\n", b"0\n"])?));
            for cpus in
                [v2.flatten(), v1.and_then(|(quota, period)| ratio(quota, period))].into_iter().flatten()
            {
                assert!(cpus.is_finite() && cpus >= 0.0, "{cpus}");
            }
            Ok(v1.is_some() || v2.is_some())
        });
    }

    #[test]
    fn any_statistics_of_throttling_are_read_or_refused() {
        const V2: &[u8] = b"usage_usec 5\nuser_usec 3\nnr_periods 7\nnr_throttled 3\nthrottled_usec 184467\n";
        const V1: &[u8] = b"nr_periods 7\nnr_throttled 3\nthrottled_time 18446744073709551615\n";
        run(4_000, 1 << 18, |u| {
            let text = edited(u, &[V2, V1])?;
            let read = [Version::V1, Version::V2].map(|version| throttled(&text, version));
            let count = number_of(&text, "nr_throttled");
            for throttling in read.iter().flatten() {
                assert_eq!(Some(throttling.count), count);
            }
            Ok(read.iter().any(Option::is_some))
        });
    }
}
