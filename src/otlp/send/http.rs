//! OTLP over HTTP/1.1, in protobuf or JSON.

use std::io;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, PROXY_AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;
use prost::bytes::Bytes;

#[cfg(feature = "otlp-profiles")]
use crate::otlp::config::endpoint::PROFILES_PATH;
use crate::otlp::config::options::Protocol;
use crate::otlp::config::settings::{Compression, Target};
use crate::otlp::config::shown::shown_url;
use crate::otlp::error::error_message;
use crate::otlp::send::answer;
use crate::otlp::send::connect::{Client, Connector, MAX_ANSWER};
#[cfg(feature = "otlp-http-json")]
use crate::otlp::send::finite::finite;
use crate::otlp::send::outcome::{Outcome, Retry, SendError};
use crate::otlp::send::payload::Payload;

pub(crate) struct Http {
    target: Target,
    connector: Connector,
    client: Client<Full<Bytes>>,
}

impl Http {
    pub(crate) fn new(target: Target, connector: Connector) -> Self {
        let client = connector.client();
        Http { target, connector, client }
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn reconnect(&mut self) {
        self.client = self.connector.client();
    }

    pub(crate) async fn send(&mut self, payload: Payload<'_>) -> Result<Outcome, SendError> {
        let request = self.request(payload)?;
        let response = self.client.request(request).await;
        let (head, body) =
            response.map_err(|error| self.connector.unreachable(&self.target.secrets, &error))?.into_parts();
        let (body, broken) = read(body).await;
        let (name, secrets) = (&self.target.endpoint.name, &self.target.secrets);
        if head.status.is_success() {
            if let Some(Broken::TooLong) = broken {
                let message = format!("{name} answered {} with more than {MAX_ANSWER} bytes", head.status);
                return Err(SendError::new(message, Retry::Never));
            }
            return answer::outcome(&head.headers, &body, broken.is_none(), secrets).map_err(|problem| {
                let message = format!("{name} answered {} with {}", head.status, secrets.excerpt(&problem));
                SendError::new(message, Retry::Never)
            });
        }
        let mut message = format!("{name} answered {}", head.status);
        let location = head.headers.get(LOCATION).and_then(|location| location.to_str().ok());
        let said = secrets.excerpt(&answer::message(&head.headers, &body));
        if let Some(location) = location.filter(|_| head.status.is_redirection()) {
            let to = secrets.excerpt(&shown_url(&self.absolute(location)));
            message += &format!("; it has moved to {to}, which the endpoint must name");
        } else if !said.is_empty() {
            message += &format!(": {said}");
        } else if let Some(Broken::Off(why)) = broken {
            message += &format!(", and the connection broke: {}", secrets.excerpt(&why));
        }
        if let Some(hint) = self.hint(head.status, &String::from_utf8_lossy(&body)) {
            message += &format!("; {hint}");
        }
        Err(SendError::new(message, retry(head.status, &head.headers, SystemTime::now())))
    }

    fn request(&mut self, payload: Payload<'_>) -> Result<Request<Full<Bytes>>, SendError> {
        let failed = |message: String| SendError::new(message, Retry::Never);
        let (message, media) = encoded(payload, self.target.protocol).map_err(failed)?;
        let (body, encoding) = compressed(message, self.target.compression)
            .map_err(|error| failed(format!("compression failed: {error}")))?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.endpoint.url.clone();
        *request.headers_mut() = self.target.headers.now(&mut self.target.secrets).map_err(failed)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        if let Some(encoding) = encoding {
            request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        if let Some(authorization) = self.connector.forwarding_authorization() {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    /// Returns a whole URL. A redirection may leave out the parts that do not change.
    fn absolute(&self, location: &str) -> String {
        let (url, location) = (&self.target.endpoint.url, location.trim());
        let scheme = url.scheme_str().unwrap_or("http");
        match (location.strip_prefix("//"), url.authority()) {
            (Some(rest), _) => format!("{scheme}://{rest}"),
            (None, Some(authority)) if !location.contains("://") => {
                let path = url.path().rsplit_once('/').map_or("", |(parent, _)| parent);
                let path = if location.starts_with('/') { String::new() } else { format!("{path}/") };
                format!("{scheme}://{authority}{path}{location}")
            }
            _ => location.to_owned(),
        }
    }

    /// Returns the remedy, if the status and the body show it.
    fn hint(&self, status: StatusCode, body: &str) -> Option<&'static str> {
        let path = self.target.endpoint.url.path();
        match status.as_u16() {
            // Servers for HTTPS say so in plain HTTP.
            400 | 426 | 497 if !self.target.endpoint.is_https() && names_tls(body) => {
                Some("it expects TLS; begin the endpoint with https://")
            }
            404 | 405 if !is_usual(path) => Some(
                "its path as a rule ends with /v1/metrics, which is appended to OTEL_EXPORTER_OTLP_ENDPOINT but not to OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            ),
            407 => Some("write a user and a password into HTTP_PROXY as http://USER:PASSWORD@HOST:PORT"),
            _ => None,
        }
    }
}

/// True for a path that ends as that of a signal does.
fn is_usual(path: &str) -> bool {
    #[cfg(feature = "otlp-profiles")]
    if path.ends_with(PROFILES_PATH) {
        return true;
    }
    path.ends_with("/v1/metrics")
}

fn names_tls(body: &str) -> bool {
    let body = body.to_ascii_lowercase();
    ["https", "ssl", "tls"].iter().any(|word| body.contains(word))
}

/// Why an answer is not whole.
enum Broken {
    Off(String),
    TooLong,
}

/// The part of an answer before it ended, broke off or was too long.
async fn read(mut body: Incoming) -> (Vec<u8>, Option<Broken>) {
    let mut bytes = Vec::new();
    while !body.is_end_stream() {
        match body.frame().await {
            None => break,
            Some(Err(error)) => return (bytes, Some(Broken::Off(error_message(&error)))),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > MAX_ANSWER {
                    return (bytes, Some(Broken::TooLong));
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
    (bytes, None)
}

/// The body and its media type. Profiles are always in protobuf: the Collector printed none of those that
/// `opentelemetry-proto` writes in JSON.
#[cfg_attr(not(feature = "otlp-http-json"), allow(unused_variables, reason = "there is but one encoding"))]
fn encoded(payload: Payload<'_>, protocol: Protocol) -> Result<(Vec<u8>, &'static str), String> {
    const PROTOBUF: &str = "application/x-protobuf";
    match payload {
        #[cfg(feature = "otlp-http-json")]
        Payload::Metrics(metrics) if protocol == Protocol::HttpJson => {
            let body = serde_json::to_vec(&finite(ExportMetricsServiceRequest::from(metrics)))
                .map_err(|error| format!("the metrics cannot be written in JSON: {error}"))?;
            Ok((body, "application/json"))
        }
        Payload::Metrics(metrics) => {
            Ok((ExportMetricsServiceRequest::from(metrics).encode_to_vec(), PROTOBUF))
        }
        #[cfg(feature = "otlp-profiles")]
        Payload::Profiles(profiles) => Ok((profiles.encode_to_vec(), PROTOBUF)),
    }
}

/// The body, and the name of its encoding.
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

/// By the OTLP specification.
fn retry(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Retry {
    match status.as_u16() {
        429 | 503 => retry_after(headers, now).map_or(Retry::Soon, Retry::After),
        502 | 504 => Retry::Soon,
        404 | 405 | 501 => Retry::NoService,
        _ => Retry::Never,
    }
}

/// Parses a time in seconds or a date.
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
    fn retries_follow_the_specification() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let retry = |status: u16, retry_after: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
            super::retry(StatusCode::from_u16(status).unwrap(), &headers, now)
        };
        assert_eq!(retry(503, "7"), Retry::After(Duration::from_secs(7)));
        assert_eq!(retry(429, "Sun, 06 Nov 1994 08:50:07 GMT"), Retry::After(Duration::from_secs(30)));
        assert_eq!(retry(429, "Sun, 06 Nov 1994 08:00:00 GMT"), Retry::After(Duration::ZERO));
        assert_eq!(retry(429, "soon"), Retry::Soon);
        assert_eq!(retry(502, "7"), Retry::Soon);
        assert_eq!(retry(504, ""), Retry::Soon);
        for status in [400, 401, 403, 413, 415, 500, 302] {
            assert_eq!(retry(status, "7"), Retry::Never, "{status}");
        }
        for status in [404, 405, 501] {
            assert_eq!(retry(status, "7"), Retry::NoService, "{status}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::util::fuzz::{edited, run};

    #[test]
    fn any_retry_after_is_a_time_or_ignored() {
        let times: [&[u8]; 5] = [
            b"7",
            b"Sun, 06 Nov 1994 08:50:07 GMT",
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"18446744073709551615",
            b"",
        ];
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        run(4_000, 1 << 18, |u| {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_bytes(&edited(u, &times)?);
            headers.extend(value.ok().map(|value| (RETRY_AFTER, value)));
            let status = StatusCode::from_u16(*u.choose(&[429, 503, 502, 500, 404])?).unwrap_or_default();
            let retry = retry(status, &headers, now);
            assert!(matches!(status.as_u16(), 429 | 503) || !matches!(retry, Retry::After(_)));
            Ok(matches!(retry, Retry::After(_)))
        });
    }
}
