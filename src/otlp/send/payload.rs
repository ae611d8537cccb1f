//! The content of an export.

#[cfg(feature = "otlp-profiles")]
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_sdk::metrics::data::ResourceMetrics;

/// The content of an export, converted as late as a protocol allows.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    Metrics(&'a ResourceMetrics),
    #[cfg(feature = "otlp-profiles")]
    Profiles(&'a ExportProfilesServiceRequest),
}

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Signal {
    Metrics,
    #[cfg(feature = "otlp-profiles")]
    Profiles,
}

#[cfg(feature = "otlp-grpc")]
impl Payload<'_> {
    pub(crate) fn signal(&self) -> Signal {
        match self {
            Payload::Metrics(_) => Signal::Metrics,
            #[cfg(feature = "otlp-profiles")]
            Payload::Profiles(_) => Signal::Profiles,
        }
    }
}
