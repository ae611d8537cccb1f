//! The errors of exporting, in sentences that name the setting to change.

use std::fmt;
use std::time::Duration;

/// The reason why metrics cannot be, or were not, delivered.
///
/// No error contains the value of a header, the text of a key, or a secret in a URL.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The value of a variable, or of a call of the builder, cannot be used.
    #[non_exhaustive]
    Setting {
        /// The variable, or the method of [`Builder`](super::Builder).
        name: String,
        /// The value, or `[hidden]` if it may be a secret.
        value: String,
        /// The problem with the value, and the remedy.
        problem: String,
    },
    /// The operating system refused the thread or the descriptors that exporting needs.
    Start(String),
    /// The metrics could not be collected, or the endpoint did not accept them.
    Export(String),
    /// The flush or the shutdown did not finish in this time. It may still finish later.
    TimedOut(Duration),
    /// The exporter was shut down, or this process is a fork of the one that exports.
    Ended,
}

impl Error {
    pub(crate) fn setting(name: &str, value: &str, problem: impl Into<String>) -> Self {
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
            Error::Ended => f.write_str("metrics are no longer exported"),
        }
    }
}

/// As `Display`, because `main` prints the `Debug` of an error that it returns.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// The text of an error and of its causes, without repetitions.
pub(crate) fn error_message(error: &(dyn std::error::Error + 'static)) -> String {
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
