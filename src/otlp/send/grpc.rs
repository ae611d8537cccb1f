//! OTLP over gRPC.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
#[cfg(any(feature = "otlp-gzip", feature = "otlp-zstd"))]
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request, Status};
use tonic_types::StatusExt;

#[cfg(any(feature = "otlp-gzip", feature = "otlp-zstd"))]
use crate::otlp::config::target::Compression;
use crate::otlp::config::target::Target;
use crate::otlp::error::Error;
use crate::otlp::export::retry::{Again, Delivered, Failure};
use crate::otlp::send::connect::{Client, Connector, LONGEST_ANSWER};

pub(in crate::otlp) struct Grpc {
    target: Target,
    connector: Connector,
    client: MetricsServiceClient<Client<tonic::body::Body>>,
}

impl Grpc {
    pub(in crate::otlp) fn new(target: Target, timeout: Duration) -> Result<Self, Error> {
        let connector = Connector::new(&target, timeout)?;
        let client = client(&connector, &target);
        Ok(Grpc { target, connector, client })
    }

    pub(in crate::otlp) fn target(&self) -> &Target {
        &self.target
    }

    pub(in crate::otlp) fn reconnect(&mut self) {
        self.client = client(&self.connector, &self.target);
    }

    pub(in crate::otlp) async fn send(&mut self, metrics: &ResourceMetrics) -> Result<Delivered, Failure> {
        let message = ExportMetricsServiceRequest::from(metrics);
        let metadata = MetadataMap::from_headers(self.target.headers.clone());
        let request = Request::from_parts(metadata, Extensions::default(), message);
        match self.client.export(request).await {
            Ok(response) => Ok(Delivered::new(response.into_inner(), &self.target)),
            Err(status) => Err(self.failure(&status)),
        }
    }

    fn failure(&self, status: &Status) -> Failure {
        // Only what went wrong on our side has a source.
        if let Some(cause) = std::error::Error::source(status) {
            return self.connector.unreachable(&self.target, cause);
        }
        let said = self.target.redact(status.message());
        let message = format!("{} answered {:?}: {said}", self.target.name(), status.code());
        let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
        Failure { message, again: again(status.code(), delay) }
    }
}

fn client(connector: &Connector, target: &Target) -> MetricsServiceClient<Client<tonic::body::Body>> {
    let client = MetricsServiceClient::with_origin(connector.client(), target.endpoint.clone())
        .max_decoding_message_size(LONGEST_ANSWER);
    // The Collector answers in the encoding that it is asked in.
    match target.compression {
        #[cfg(feature = "otlp-gzip")]
        Compression::Gzip => client.send_compressed(GZIP).accept_compressed(GZIP),
        #[cfg(feature = "otlp-zstd")]
        Compression::Zstd => client.send_compressed(ZSTD).accept_compressed(ZSTD),
        _ => client,
    }
}

#[cfg(feature = "otlp-gzip")]
const GZIP: CompressionEncoding = CompressionEncoding::Gzip;
#[cfg(feature = "otlp-zstd")]
const ZSTD: CompressionEncoding = CompressionEncoding::Zstd;

/// By the OTLP specification. An exhausted resource is tried again only if the receiver says when.
fn again(code: Code, delay: Option<Duration>) -> Again {
    match (code, delay.filter(|delay| !delay.is_zero())) {
        (Code::ResourceExhausted | Code::Unavailable, Some(delay)) => Again::After(delay),
        (Code::ResourceExhausted, None) if delay.is_none() => Again::Never,
        (
            Code::ResourceExhausted
            | Code::Unavailable
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::DataLoss,
            _,
        ) => Again::Soon,
        _ => Again::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again_follows_the_specification() {
        let second = Duration::from_secs(1);
        assert_eq!(again(Code::ResourceExhausted, None), Again::Never);
        assert_eq!(again(Code::ResourceExhausted, Some(Duration::ZERO)), Again::Soon);
        assert_eq!(again(Code::ResourceExhausted, Some(second)), Again::After(second));
        assert_eq!(again(Code::Unavailable, None), Again::Soon);
        assert_eq!(again(Code::Unavailable, Some(second)), Again::After(second));
        for code in [Code::Cancelled, Code::DeadlineExceeded, Code::Aborted, Code::OutOfRange, Code::DataLoss]
        {
            assert_eq!(again(code, None), Again::Soon, "{code:?}");
        }
        for code in [Code::Unknown, Code::InvalidArgument, Code::Unauthenticated, Code::Unimplemented] {
            assert_eq!(again(code, Some(second)), Again::Never, "{code:?}");
        }
    }
}
