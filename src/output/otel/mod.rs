//! Reports to OpenTelemetry: instruments on a meter, and the view that keeps them small.

pub(crate) mod audience;
pub(crate) mod instruments;
#[cfg(feature = "view")]
mod view;

#[cfg(feature = "view")]
pub use view::view;
