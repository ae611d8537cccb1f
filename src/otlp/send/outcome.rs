//! The result of an attempt.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
#[cfg(all(feature = "otlp-profiles", feature = "otlp-grpc"))]
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceResponse;

use crate::otlp::config::secrets::Secrets;

/// The endpoint's report on an export that it accepted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It took everything, and may have advice.
    Accepted { advice: Option<String> },
    /// It rejected some of the points, or of the profiles, for good.
    PartlyRejected { items: u64, message: String },
}

impl Outcome {
    pub(crate) const ACCEPTED: Self = Outcome::Accepted { advice: None };

    pub(crate) fn new(rejected: i64, message: &str, secrets: &Secrets) -> Self {
        let message = secrets.excerpt(message);
        match u64::try_from(rejected) {
            Ok(items @ 1..) => Outcome::PartlyRejected { items, message },
            _ => Outcome::Accepted { advice: Some(message).filter(|message| !message.is_empty()) },
        }
    }

    pub(crate) fn of_response(response: ExportMetricsServiceResponse, secrets: &Secrets) -> Self {
        match response.partial_success {
            Some(part) => Self::new(part.rejected_data_points, &part.error_message, secrets),
            None => Self::ACCEPTED,
        }
    }

    #[cfg(all(feature = "otlp-profiles", feature = "otlp-grpc"))]
    pub(crate) fn of_profiles_response(response: ExportProfilesServiceResponse, secrets: &Secrets) -> Self {
        match response.partial_success {
            Some(part) => Self::new(part.rejected_profiles, &part.error_message, secrets),
            None => Self::ACCEPTED,
        }
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SendError {
    /// A sentence fit to be printed.
    pub(crate) message: String,
    pub(crate) retry: Retry,
}

impl SendError {
    pub(crate) fn new(message: impl Into<String>, retry: Retry) -> Self {
        SendError { message: message.into(), retry }
    }
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SendError {}

/// The moment from which the same export may succeed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Retry {
    Never,
    /// The endpoint has no service for this signal. Trying again makes no difference until it gets one.
    NoService,
    Soon,
    /// The endpoint said when.
    After(Duration),
}
