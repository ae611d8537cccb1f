//! OTLP over gRPC.

use std::time::Duration;

use http::HeaderMap;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
#[cfg(feature = "otlp-profiles")]
use opentelemetry_proto::tonic::collector::profiles::v1development::profiles_service_client::ProfilesServiceClient;
#[cfg(any(feature = "otlp-gzip", feature = "otlp-zstd"))]
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request, Status};
use tonic_types::StatusExt;

#[cfg(any(feature = "otlp-gzip", feature = "otlp-zstd"))]
use crate::otlp::config::settings::Compression;
use crate::otlp::config::settings::Target;
use crate::otlp::send::connect::{Client, Connector, MAX_ANSWER};
use crate::otlp::send::details::WithoutMalformed;
use crate::otlp::send::outcome::{Outcome, Retry, SendError};
use crate::otlp::send::payload::{Payload, Signal};

pub(crate) struct Grpc {
    target: Target,
    connector: Connector,
    clients: Clients,
}

/// The clients of the services, over the same connections.
struct Clients {
    metrics: MetricsServiceClient<Channel>,
    #[cfg(feature = "otlp-profiles")]
    profiles: ProfilesServiceClient<Channel>,
}

type Channel = WithoutMalformed<Client<tonic::body::Body>>;

impl Grpc {
    pub(crate) fn new(target: Target, connector: Connector) -> Self {
        let clients = Clients::new(&connector, &target);
        Grpc { target, connector, clients }
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn reconnect(&mut self) {
        self.clients = Clients::new(&self.connector, &self.target);
    }

    pub(crate) async fn send(&mut self, payload: Payload<'_>) -> Result<Outcome, SendError> {
        let headers = self.target.headers.now(&mut self.target.secrets);
        let headers = headers.map_err(|problem| SendError::new(problem, Retry::Never))?;
        let secrets = &self.target.secrets;
        let outcome = match payload {
            Payload::Metrics(metrics) => {
                let request = request(headers, ExportMetricsServiceRequest::from(metrics));
                let response = self.clients.metrics.export(request).await;
                response.map(|response| Outcome::of_response(response.into_inner(), secrets))
            }
            #[cfg(feature = "otlp-profiles")]
            Payload::Profiles(profiles) => {
                let response = self.clients.profiles.export(request(headers, profiles.clone())).await;
                response.map(|response| Outcome::of_profiles_response(response.into_inner(), secrets))
            }
        };
        outcome.map_err(|status| self.failure(&status, payload.signal()))
    }

    fn failure(&self, status: &Status, signal: Signal) -> SendError {
        // Only a failure on this side has a source.
        if let Some(cause) = std::error::Error::source(status) {
            return self.connector.unreachable(&self.target.secrets, cause);
        }
        let mut message = format!("{} answered {:?}", self.target.endpoint.name, status.code());
        let said = self.target.secrets.excerpt(status.message());
        if !said.is_empty() {
            message += &format!(": {said}");
        }
        if let Some(hint) = hint(status, signal) {
            message += &format!("; {hint}");
        }
        let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
        SendError::new(message, retry(status.code(), delay))
    }
}

/// Makes the client of a service. The generated clients have no trait in common.
macro_rules! client {
    ($service:ident, $channel:expr, $target:expr) => {{
        let client = $service::with_origin($channel, $target.endpoint.url.clone())
            .max_decoding_message_size(MAX_ANSWER);
        // The Collector answers in the encoding of the request.
        match $target.compression {
            #[cfg(feature = "otlp-gzip")]
            Compression::Gzip => client.send_compressed(GZIP).accept_compressed(GZIP),
            #[cfg(feature = "otlp-zstd")]
            Compression::Zstd => client.send_compressed(ZSTD).accept_compressed(ZSTD),
            _ => client,
        }
    }};
}

impl Clients {
    fn new(connector: &Connector, target: &Target) -> Self {
        let channel = WithoutMalformed(connector.client());
        Clients {
            #[cfg(feature = "otlp-profiles")]
            profiles: client!(ProfilesServiceClient, channel.clone(), target),
            metrics: client!(MetricsServiceClient, channel, target),
        }
    }
}

fn request<T>(headers: HeaderMap, message: T) -> Request<T> {
    Request::from_parts(MetadataMap::from_headers(headers), Extensions::default(), message)
}

#[cfg(feature = "otlp-gzip")]
const GZIP: CompressionEncoding = CompressionEncoding::Gzip;
#[cfg(feature = "otlp-zstd")]
const ZSTD: CompressionEncoding = CompressionEncoding::Zstd;

/// Returns the remedy, if the answer shows it.
fn hint(status: &Status, signal: Signal) -> Option<&'static str> {
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
    is_unknown.then_some(match signal {
        Signal::Metrics => "it speaks gRPC but has no OTLP service for metrics at this endpoint",
        #[cfg(feature = "otlp-profiles")]
        Signal::Profiles => "it speaks gRPC but has no OTLP service for profiles at this endpoint",
    })
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
        (Code::Unimplemented, _) => Retry::NoService,
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
        for code in [Code::Unknown, Code::InvalidArgument, Code::Unauthenticated] {
            assert_eq!(retry(code, Some(second)), Retry::Never, "{code:?}");
        }
        assert_eq!(retry(Code::Unimplemented, Some(second)), Retry::NoService);
    }
}

#[cfg(test)]
mod fuzz {
    use prost::bytes::Bytes;
    use tonic_types::ErrorDetails;

    use super::*;
    use crate::otlp::send::details::remove_malformed;
    use crate::util::fuzz::{edited, edited_text, run};

    #[test]
    fn any_details_of_a_status_have_a_pause_or_none() {
        let details = [Some(Duration::from_millis(1500)), Some(Duration::MAX), Some(Duration::ZERO), None]
            .map(|pause| {
                let mut details = ErrorDetails::with_retry_info(pause);
                details.set_bad_request([tonic_types::FieldViolation::new("a", "b")]);
                Status::with_error_details(Code::Unavailable, "later", details).details().to_vec()
            });
        let details: Vec<_> = details.iter().map(Vec::as_slice).collect();
        let messages = [
            "later",
            "grpc-status header missing, mapped from HTTP status code 404",
            "invalid compression flag: 60",
        ];
        run(4_000, 1 << 20, |u| {
            let code = Code::from_i32(u.int_in_range(-1..=17)?);
            let (message, details) = (edited_text(u, &messages)?, edited(u, &details)?);
            let status = Status::with_details(code, message, Bytes::from(details));
            let pause = status.get_details_retry_info().and_then(|info| info.retry_delay);
            let retry = retry(status.code(), pause);
            assert!(pause.is_some() || !matches!(retry, Retry::After(_)));
            hint(&status, Signal::Metrics);
            Ok(pause.is_some())
        });
    }

    #[test]
    fn any_headers_have_a_status_or_none() {
        let values: [&[u8]; 6] = [b"14", b"8", b"later%20%C3%A9", b"CAgSBWxhdGVy", b"-1", b"%ff%"];
        run(4_000, 1 << 20, |u| {
            let mut headers = HeaderMap::new();
            for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
                let value = http::HeaderValue::from_bytes(&edited(u, &values)?).ok();
                headers.extend(value.map(|value| (http::HeaderName::from_static(name), value)));
            }
            remove_malformed(&mut headers);
            let status = Status::from_header_map(&headers);
            let retry_info = status.as_ref().map(|status| status.get_details_retry_info());
            Ok(retry_info.is_some())
        });
    }
}
