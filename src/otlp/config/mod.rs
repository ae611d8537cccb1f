//! From the environment and the builder's calls to settings.

pub(in crate::otlp) mod endpoint;
pub(in crate::otlp) mod env;
pub(in crate::otlp) mod headers;
#[cfg(feature = "otlp-tls")]
pub(in crate::otlp) mod identity;
pub(in crate::otlp) mod options;
pub(in crate::otlp) mod proxy;
pub(in crate::otlp) mod resource;
pub(in crate::otlp) mod secrets;
pub(in crate::otlp) mod settings;
