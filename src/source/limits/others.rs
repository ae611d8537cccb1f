//! Reads the limits that systems other than Linux report. It is compiled, but no test runs it.

use super::sample::{Limits, parallelism};

pub(super) struct Sampler;

impl Sampler {
    pub(super) fn new() -> Self {
        Sampler
    }

    pub(super) fn sample(&mut self) -> Limits {
        Limits {
            cpus: parallelism(),
            #[cfg(unix)]
            file_descriptors: crate::source::unix::file_descriptor_limit(),
            ..Limits::default()
        }
    }
}
