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
use crate::otlp::config::settings::Compression;
use crate::otlp::config::settings::Target;
use crate::otlp::send::connect::{Client, Connector, MAX_ANSWER};
use crate::otlp::send::outcome::{Outcome, Retry, SendError};

pub(crate) struct Grpc {
    target: Target,
    connector: Connector,
    client: MetricsServiceClient<Client<tonic::body::Body>>,
}

impl Grpc {
    pub(crate) fn new(target: Target, connector: Connector) -> Self {
        let client = client(&connector, &target);
        Grpc { target, connector, client }
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn reconnect(&mut self) {
        self.client = client(&self.connector, &self.target);
    }

    pub(crate) async fn send(&mut self, metrics: &ResourceMetrics) -> Result<Outcome, SendError> {
        let message = ExportMetricsServiceRequest::from(metrics);
        let headers = self.target.headers.now(&mut self.target.secrets);
        let headers = headers.map_err(|problem| SendError::new(problem, Retry::Never))?;
        let request = Request::from_parts(MetadataMap::from_headers(headers), Extensions::default(), message);
        match self.client.export(request).await {
            Ok(response) => Ok(Outcome::of_response(response.into_inner(), &self.target.secrets)),
            Err(status) => Err(self.failure(&status)),
        }
    }

    fn failure(&self, status: &Status) -> SendError {
        // Only a failure on this side has a source.
        if let Some(cause) = std::error::Error::source(status) {
            return self.connector.unreachable(&self.target.secrets, cause);
        }
        let mut message = format!("{} answered {:?}", self.target.endpoint.name, status.code());
        let said = self.target.secrets.excerpt(status.message());
        if !said.is_empty() {
            message += &format!(": {said}");
        }
        if let Some(hint) = hint(status) {
            message += &format!("; {hint}");
        }
        let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
        SendError::new(message, retry(status.code(), delay))
    }
}

fn client(connector: &Connector, target: &Target) -> MetricsServiceClient<Client<tonic::body::Body>> {
    let client = MetricsServiceClient::with_origin(connector.client(), target.endpoint.url.clone())
        .max_decoding_message_size(MAX_ANSWER);
    // The Collector answers in the encoding of the request.
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

/// Returns the remedy, if the answer shows it.
fn hint(status: &Status) -> Option<&'static str> {
    let said = status.message();
    // In the words of tonic, for an answer without a status of gRPC.
    let is_http = said.contains("HTTP status code") || said.contains("receiving response with status");
    let is_no_grpc = said.contains("invalid compression flag");
    if is_no_grpc || is_http && ["400", "404", "405", "415"].iter().any(|code| said.contains(code)) {
        return Some(
            "it answers as an HTTP server; set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or use its port for gRPC, as a rule 4317",
        );
    }
    if is_http && ["301", "302", "307", "308"].iter().any(|code| said.contains(code)) {
        return Some("it has moved, and gRPC does not say where; the endpoint must name its new place");
    }
    let is_unknown = status.code() == Code::Unimplemented;
    is_unknown.then_some("it speaks gRPC but has no OTLP service for metrics at this endpoint")
}

/// By the OTLP specification. An exhausted resource is tried again only if the endpoint says when.
fn retry(code: Code, delay: Option<Duration>) -> Retry {
    match (code, delay.filter(|delay| !delay.is_zero())) {
        (Code::ResourceExhausted | Code::Unavailable, Some(delay)) => Retry::After(delay),
        (Code::ResourceExhausted, None) if delay.is_none() => Retry::Never,
        (
            Code::ResourceExhausted
            | Code::Unavailable
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::DataLoss,
            _,
        ) => Retry::Soon,
        _ => Retry::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_follow_the_specification() {
        let second = Duration::from_secs(1);
        assert_eq!(retry(Code::ResourceExhausted, None), Retry::Never);
        assert_eq!(retry(Code::ResourceExhausted, Some(Duration::ZERO)), Retry::Soon);
        assert_eq!(retry(Code::ResourceExhausted, Some(second)), Retry::After(second));
        assert_eq!(retry(Code::Unavailable, None), Retry::Soon);
        assert_eq!(retry(Code::Unavailable, Some(second)), Retry::After(second));
        for code in [Code::Cancelled, Code::DeadlineExceeded, Code::Aborted, Code::OutOfRange, Code::DataLoss]
        {
            assert_eq!(retry(code, None), Retry::Soon, "{code:?}");
        }
        for code in [Code::Unknown, Code::InvalidArgument, Code::Unauthenticated, Code::Unimplemented] {
            assert_eq!(retry(code, Some(second)), Retry::Never, "{code:?}");
        }
    }
}
