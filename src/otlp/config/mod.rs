//! Makes the settings from the environment and the calls of the builder.

pub(crate) mod endpoint;
pub(crate) mod env;
#[cfg(test)]
mod fuzz;
pub(crate) mod headers;
#[cfg(feature = "otlp-tls")]
pub(crate) mod identity;
pub(crate) mod options;
#[cfg(feature = "otlp-profiles")]
pub(crate) mod profiles;
pub(crate) mod proxy;
pub(crate) mod resource;
pub(crate) mod secrets;
pub(crate) mod settings;
pub(crate) mod shown;
#[cfg(test)]
mod tests;
