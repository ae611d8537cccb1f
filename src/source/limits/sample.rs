//! The sample that the rows of the limits read.

/// A field without a limit, or one that cannot be read, is `None`.
#[derive(Default)]
pub(crate) struct Limits {
    pub(super) memory: Option<u64>,
    pub(super) cpus: Option<u64>,
    pub(super) throttles: Option<u64>,
    pub(super) throttled_seconds: Option<f64>,
    pub(super) file_descriptors: Option<u64>,
}

/// Returns the number of CPUs by std's account.
pub(super) fn parallelism() -> Option<u64> {
    std::thread::available_parallelism().ok()?.get().try_into().ok()
}
