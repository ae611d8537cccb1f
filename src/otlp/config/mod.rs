//! From the environment and the builder's calls to settings.

pub(in crate::otlp) mod endpoint;
pub(in crate::otlp) mod env;
pub(in crate::otlp) mod headers;
pub(in crate::otlp) mod resource;
pub(in crate::otlp) mod settings;
pub(in crate::otlp) mod target;
