//! The sources. Each is a table of rows and a function that takes the sample they read.

pub(crate) mod common;
#[cfg_attr(
    not(all(target_os = "linux", target_env = "gnu")),
    allow(dead_code, reason = "this build takes no sample")
)]
pub(crate) mod glibc;
#[cfg_attr(not(feature = "jemalloc"), allow(dead_code, reason = "this build takes no sample"))]
pub(crate) mod jemalloc;
pub(crate) mod limits;
#[cfg(target_os = "linux")]
mod linux;
pub(crate) mod memory;
#[cfg_attr(not(feature = "mimalloc"), allow(dead_code, reason = "this build takes no sample"))]
pub(crate) mod mimalloc;
#[cfg_attr(not(any(unix, windows)), allow(dead_code, reason = "this build takes no sample"))]
pub(crate) mod process;
pub(crate) mod replay;
pub(crate) mod row;
pub(crate) mod table;
pub(crate) mod task;
pub(crate) mod tokio;
#[cfg(unix)]
mod unix;

use std::sync::Arc;

use crate::settings::Settings;
use table::{Group, Source};

/// The one list of sources, in the order in which snapshots contain them. A new source is a file and a line here.
static SOURCES: [Entry; 8] = [
    Entry { group: || memory::TABLE.group(), source: |settings, _| memory::source(settings) },
    Entry { group: || jemalloc::TABLE.group(), source: |_, _| jemalloc::source() },
    Entry { group: || mimalloc::TABLE.group(), source: |_, _| mimalloc::source() },
    Entry { group: || glibc::TABLE.group(), source: |settings, _| glibc::source(settings) },
    Entry { group: || limits::TABLE.group(), source: |_, _| limits::source() },
    Entry { group: || process::TABLE.group(), source: |settings, _| process::source(settings) },
    Entry { group: || tokio::TABLE.group(), source: |_, runtimes| tokio::source(runtimes) },
    Entry { group: || task::TABLE.group(), source: |settings, _| task::source(settings) },
];

struct Entry {
    /// Describes the source.
    group: fn() -> Group,
    /// Binds it to this process.
    source: fn(&Settings, &Arc<tokio::Runtimes>) -> Source,
}

/// Returns every source, those that are off included, in the order of [`catalogue`].
pub(crate) fn all(settings: &Settings, runtimes: &Arc<tokio::Runtimes>) -> Vec<Source> {
    SOURCES.iter().map(|entry| (entry.source)(settings, runtimes)).collect()
}

/// Returns every metric that the library can report, by source, in the order in which snapshots contain them.
///
/// The list is the same in every build and on every machine. `METRICS.md` is generated from it.
///
/// ```
/// use opentelemetry_instrumentation_runtime::catalogue;
///
/// for group in catalogue() {
///     println!("{}: {}", group.name, group.about);
///     for metric in group.metrics {
///         println!("  {} [{}] {}", metric.name(), metric.unit(), metric.description());
///     }
/// }
/// ```
pub fn catalogue() -> Vec<Group> {
    SOURCES.iter().map(|entry| (entry.group)()).collect()
}
