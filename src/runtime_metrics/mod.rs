//! The public face: the settings, the snapshots and the registration of instruments.

mod builder;
mod metrics;
mod shared;
#[cfg(feature = "profile")]
mod stalls;
#[cfg(test)]
mod tests;

pub use builder::Builder;
pub use metrics::RuntimeMetrics;
