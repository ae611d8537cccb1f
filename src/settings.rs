//! Holds the settings of one `RuntimeMetrics` and their defaults.

use std::time::Duration;

use opentelemetry::KeyValue;

/// The settings, one field for each method of [`Builder`](crate::Builder) that sets a value. The methods document them.
///
/// Runtimes and the handler of stalls are objects of the application, not values. The builder passes them on itself.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The attributes of every series.
    pub(crate) attributes: Vec<KeyValue>,
    pub(crate) per_worker: bool,
    pub(crate) size_classes: bool,
    pub(crate) process: bool,
    pub(crate) disk_io: bool,
    pub(crate) glibc: bool,
    pub(crate) probe_interval: Duration,
    pub(crate) stall_threshold: Duration,
    /// `None` keeps the present setting of the process, as it does in the next two fields.
    pub(crate) slow_poll_threshold: Option<Duration>,
    pub(crate) task_name_limit: Option<usize>,
    pub(crate) task_scheduled_time: Option<bool>,
    /// The mean distance between samples of the heap profile, if one is to be started.
    #[cfg(feature = "profile")]
    pub(crate) heap_profile: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            attributes: Vec::new(),
            per_worker: false,
            size_classes: false,
            process: true,
            disk_io: false,
            glibc: false,
            probe_interval: Duration::from_millis(100),
            stall_threshold: Duration::from_millis(100),
            slow_poll_threshold: None,
            task_name_limit: None,
            task_scheduled_time: None,
            #[cfg(feature = "profile")]
            heap_profile: None,
        }
    }
}
