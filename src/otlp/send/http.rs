//! OTLP over HTTP, with protobuf.

use std::io;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use prost::Message;
use prost::bytes::Bytes;

use crate::otlp::config::target::{Compression, Target};
use crate::otlp::error::Error;
use crate::otlp::export::retry::{Again, Delivered, Failure};
use crate::otlp::send::connect::{Client, Connector, LONGEST_ANSWER};

pub(in crate::otlp) struct Http {
    target: Target,
    connector: Connector,
    client: Client<Full<Bytes>>,
}

const PROTOBUF: &str = "application/x-protobuf";

impl Http {
    pub(in crate::otlp) fn new(target: Target, timeout: Duration) -> Result<Self, Error> {
        let connector = Connector::new(&target, timeout)?;
        let client = connector.client();
        Ok(Http { target, connector, client })
    }

    pub(in crate::otlp) fn target(&self) -> &Target {
        &self.target
    }

    pub(in crate::otlp) fn reconnect(&mut self) {
        self.client = self.connector.client();
    }

    pub(in crate::otlp) async fn send(&mut self, metrics: &ResourceMetrics) -> Result<Delivered, Failure> {
        let message = ExportMetricsServiceRequest::from(metrics).encode_to_vec();
        let (body, encoding) = compressed(message, self.target.compression).map_err(|error| Failure {
            message: format!("compression failed: {error}"),
            again: Again::Never,
        })?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.endpoint.clone();
        *request.headers_mut() = self.target.headers.clone();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        if let Some(encoding) = encoding {
            request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| self.connector.unreachable(&self.target, &error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await.map(|body| body.to_bytes());
        if head.status.is_success() {
            let body = body.map_err(|error| self.unread(&*error))?;
            return self.taken(&head.headers, &body);
        }
        let said = self.target.redact(&words(&head.headers, &body.unwrap_or_default()));
        let message = format!("{} answered {}: {said}", self.target.name(), head.status);
        Err(Failure { message, again: again(head.status, &head.headers, SystemTime::now()) })
    }

    /// An answer that broke off, or that is longer than any from a receiver of OTLP.
    fn unread(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        let failure = self.connector.unreachable(&self.target, error);
        if error.is::<LengthLimitError>() { Failure { again: Again::Never, ..failure } } else { failure }
    }

    /// Some receivers answer with nothing or in JSON. Whatever else comes with a 200 is not from a receiver of OTLP.
    fn taken(&self, headers: &HeaderMap, body: &[u8]) -> Result<Delivered, Failure> {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if body.is_empty() || kind.starts_with("application/json") {
            return Ok(Delivered::All);
        }
        match ExportMetricsServiceResponse::decode(body) {
            Ok(answer) if kind.starts_with(PROTOBUF) => Ok(Delivered::new(answer, &self.target)),
            _ => {
                let message = format!("{} answered 200 with {kind:?} that is not OTLP", self.target.name());
                Err(Failure { message, again: Again::Never })
            }
        }
    }
}

/// The body, and what to tell of it.
fn compressed(message: Vec<u8>, compression: Compression) -> io::Result<(Vec<u8>, Option<&'static str>)> {
    match compression {
        #[cfg(feature = "otlp-gzip")]
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            io::Write::write_all(&mut encoder, &message)?;
            Ok((encoder.finish()?, Some("gzip")))
        }
        #[cfg(feature = "otlp-zstd")]
        Compression::Zstd => Ok((zstd::bulk::compress(&message, 0)?, Some("zstd"))),
        _ => Ok((message, None)),
    }
}

/// What a receiver says about an error, in a protobuf `Status` or as text.
fn words(headers: &HeaderMap, body: &[u8]) -> String {
    /// `google.rpc.Status`, as far as it is of use here.
    #[derive(Clone, PartialEq, Message)]
    struct Status {
        #[prost(string, tag = "2")]
        message: String,
    }
    match headers.get(CONTENT_TYPE) {
        Some(kind) if kind.as_bytes().starts_with(PROTOBUF.as_bytes()) => {
            Status::decode(body).map(|status| status.message).unwrap_or_default()
        }
        // From a proxy, or from no receiver of OTLP at all.
        Some(kind) if kind.as_bytes().starts_with(b"text/html") => "a page of HTML".into(),
        _ => String::from_utf8_lossy(body).into_owned(),
    }
}

/// By the OTLP specification.
fn again(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Again {
    match status.as_u16() {
        429 | 503 => retry_after(headers, now).map_or(Again::Soon, Again::After),
        502 | 504 => Again::Soon,
        _ => Again::Never,
    }
}

/// In seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again_follows_the_specification() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let again = |status: u16, retry_after: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
            super::again(StatusCode::from_u16(status).unwrap(), &headers, now)
        };
        assert_eq!(again(503, "7"), Again::After(Duration::from_secs(7)));
        assert_eq!(again(429, "Sun, 06 Nov 1994 08:50:07 GMT"), Again::After(Duration::from_secs(30)));
        assert_eq!(again(429, "Sun, 06 Nov 1994 08:00:00 GMT"), Again::After(Duration::ZERO));
        assert_eq!(again(429, "soon"), Again::Soon);
        assert_eq!(again(502, "7"), Again::Soon);
        assert_eq!(again(504, ""), Again::Soon);
        for status in [400, 401, 403, 404, 413, 415, 500, 501, 302] {
            assert_eq!(again(status, "7"), Again::Never, "{status}");
        }
    }
}
