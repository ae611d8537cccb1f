//! Reads the limits from control groups and by system calls.

use super::cgroup::Cgroups;
use super::sample::{Limits, parallelism};
use crate::source::linux::calls::affinity;
use crate::source::unix;

pub(super) struct Sampler(Cgroups);

impl Sampler {
    pub(super) fn new() -> Self {
        Sampler(Cgroups::at("/"))
    }

    pub(super) fn sample(&mut self) -> Limits {
        let Sampler(cgroups) = self;
        cgroups.refresh();
        let (quota, throttling) = cgroups.cpu();
        let cpus = affinity(cgroups.process()).or_else(parallelism);
        Limits {
            memory: cgroups.memory_limit(),
            cpus: cpus.map(|cpus| quota.map_or(cpus, |quota| cpus.min(whole_cpus(quota)))),
            throttles: throttling.map(|throttling| throttling.count),
            throttled_seconds: throttling.map(|throttling| throttling.time.as_secs_f64()),
            file_descriptors: unix::file_descriptor_limit(),
        }
    }
}

/// Returns whole CPUs, since a number of threads is derived from it.
fn whole_cpus(quota: f64) -> u64 {
    (quota as u64).max(1)
}
