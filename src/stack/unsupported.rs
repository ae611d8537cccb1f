//! Stands in for the stacks of systems without support.

use std::time::Duration;

use crate::stack::reason::Reason;
use crate::stack::types::{CpuSample, CpuSummary, MAX_FRAMES, Object, Stack, Walked};

/// Fails.
pub(crate) fn prepare() -> Result<(), Reason> {
    Err(Reason::Unsupported)
}

/// Does nothing.
pub(crate) fn refresh() {}

/// Writes nothing.
pub(crate) fn here(_: &mut [usize; MAX_FRAMES]) -> Walked {
    Walked::default()
}

/// Returns none.
pub(crate) fn objects() -> Vec<Object> {
    Vec::new()
}

/// Returns none.
pub(crate) fn threads() -> Vec<u32> {
    Vec::new()
}

/// Returns none.
pub(crate) fn thread_name(_: u32) -> Option<String> {
    None
}

/// Fails.
pub(crate) fn of_thread(_: u32, _: Duration) -> Result<Stack, Reason> {
    Err(Reason::Unsupported)
}

/// Cannot be started.
pub(crate) enum Sampler {}

impl Sampler {
    /// Fails.
    pub(crate) fn start(_: Duration, _: fn() -> Option<&'static str>) -> Result<Self, Reason> {
        Err(Reason::Unsupported)
    }

    /// Is never called.
    pub(crate) fn look(&mut self, _: impl FnMut(CpuSample)) -> Duration {
        match *self {}
    }

    /// Is never called.
    pub(crate) fn stop(self, _: impl FnMut(CpuSample)) -> CpuSummary {
        match self {}
    }
}
