//! What can go wrong, in words that name the setting to change.

use std::fmt;
use std::time::Duration;

/// Why metrics cannot be, or were not, delivered.
///
/// Never contains the value of a header, nor credentials in an endpoint.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A variable or a call of the builder has a value that cannot be used.
    #[non_exhaustive]
    Setting {
        /// The variable, or the method of [`Builder`](super::Builder).
        name: String,
        /// What it was set to, `[hidden]` where that may be a secret.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system refused the thread or the descriptors that exporting needs.
    Start(String),
    /// The metrics could not be collected, or the receiver did not take them.
    Export(String),
    /// The flush or the shutdown was not over in this time. It may still come to its end.
    TimedOut(Duration),
    /// Nothing is exported any more: it was shut down, or this process is a fork of the one that exports.
    Ended,
}

impl Error {
    pub(in crate::otlp) fn setting(name: &str, value: &str, problem: impl Into<String>) -> Self {
        Error::Setting { name: name.into(), value: value.into(), problem: problem.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Setting { name, value, problem } => write!(f, "{name}={value}: {problem}"),
            Error::Start(why) => write!(f, "exporting metrics cannot start: {why}"),
            Error::Export(why) => write!(f, "the metrics were not delivered: {why}"),
            Error::TimedOut(time) => write!(f, "the metrics were not delivered within {time:?}"),
            Error::Ended => f.write_str("metrics are not exported any more"),
        }
    }
}

/// What `main` prints of an error that it returns.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// An error and what caused it, without repetitions.
pub(in crate::otlp) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
