//! Facts about programs in Go that tests compare with.

/// The keys of `runtime.MemStats` that monitors of Go programs print, and two that they print beside them.
pub const MONITOR_KEYS: [&str; 9] = [
    "Alloc",
    "TotalAlloc",
    "Sys",
    "Mallocs",
    "Frees",
    "LiveObjects",
    "PauseTotalNs",
    "NumGC",
    "NumGoroutine",
];
