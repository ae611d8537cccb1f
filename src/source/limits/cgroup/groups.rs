//! Reads the limits and the throttling of the groups that were looked up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lookup::{Controller, Group, Version};
use crate::source::linux::files::{Reader, number, number_of};

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
    reader: Reader,
    /// The content of `/proc/self/cgroup` when the groups were looked up.
    memberships: Vec<u8>,
    pub(super) memory: Option<Group>,
    pub(super) cpu: Option<Group>,
}

impl Cgroups {
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Cgroups {
            proc_self: root.join("proc/self"),
            root,
            reader: Reader::default(),
            memberships: Vec::new(),
            memory: None,
            cpu: None,
        }
    }

    /// Looks the groups up again if the process was moved since the last call.
    pub(crate) fn refresh(&mut self) {
        let memberships = self.reader.read(&self.proc_self, "cgroup").unwrap_or_default();
        if memberships != self.memberships {
            self.memberships.clear();
            self.memberships.extend_from_slice(memberships);
            // A separate reader: the buffer of `self.reader` would keep the length of this long file.
            let mut reader = Reader::default();
            let mounts = reader.read(&self.proc_self, "mountinfo").unwrap_or_default();
            let find = |controller| Group::find(controller, &self.memberships, mounts, &self.root);
            self.memory = find(Controller::Memory);
            self.cpu = find(Controller::Cpu);
        }
    }

    pub(crate) fn memory_limit(&mut self) -> Option<u64> {
        let group = self.memory.as_ref()?;
        match group.version {
            Version::V2 => {
                let reader = &mut self.reader;
                let mut limit = |level, file| number(reader.read(level, file)?);
                group.levels().flat_map(|level| MEMORY_LIMITS.map(|file| limit(level, file))).flatten().min()
            }
            // The kernel has already taken the groups above into account, even those that a container cannot see.
            Version::V1 => {
                let own = group.levels().next()?;
                let hierarchical = self
                    .reader
                    .read(own, "memory.stat")
                    .and_then(|text| number_of(text, "hierarchical_memory_limit"));
                hierarchical
                    .or_else(|| number(self.reader.read(own, "memory.limit_in_bytes")?))
                    .filter(|limit| *limit < NO_MEMORY_LIMIT)
            }
        }
    }

    /// Returns the smallest quota in CPUs, and the throttling by all quotas.
    pub(crate) fn cpu(&mut self) -> (Option<f64>, Option<Throttling>) {
        let Some(group) = &self.cpu else { return (None, None) };
        let reader = &mut self.reader;
        let (mut smallest, mut throttling) = (None::<f64>, None::<Throttling>);
        for level in group.levels() {
            let Some(quota) = quota(reader, group.version, level) else { continue };
            smallest = Some(smallest.map_or(quota, |smallest| smallest.min(quota)));
            if let Some(own) = reader.read(level, "cpu.stat").and_then(|text| throttled(text, group.version))
            {
                let sum = throttling.get_or_insert_default();
                sum.count = sum.count.saturating_add(own.count);
                sum.time = sum.time.saturating_add(own.time);
            }
        }
        (smallest, throttling)
    }
}

/// Above the first one the kernel kills. Above the second one it throttles and reclaims, so that the process stands
/// almost still before it comes to the first.
const MEMORY_LIMITS: [&str; 2] = ["memory.max", "memory.high"];

/// The smallest value by which version 1 says that there is no limit: the largest number of bytes in whole pages that an
/// `i64` holds. Pages have at most 64 KiB.
const NO_MEMORY_LIMIT: u64 = i64::MAX as u64 & !0xffff;

/// Returns the quota of a group, in CPUs.
fn quota(reader: &mut Reader, version: Version, level: &Path) -> Option<f64> {
    match version {
        Version::V2 => cpu_max(reader.read(level, "cpu.max")?),
        Version::V1 => {
            let quota = number(reader.read(level, "cpu.cfs_quota_us")?)?;
            ratio(quota, number(reader.read(level, "cpu.cfs_period_us")?)?)
        }
    }
}

/// Parses `quota period`, in which `max` means no quota.
fn cpu_max(text: &[u8]) -> Option<f64> {
    let (quota, period) = std::str::from_utf8(text).ok()?.trim_ascii().split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
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
