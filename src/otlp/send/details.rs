//! Keeps malformed details of a status from the gRPC client, which panics on them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::metadata::MetadataMap;
use tower_service::Service;

/// The header or trailer with the details, such as the pause before the next attempt.
const DETAILS: &str = "grpc-status-details-bin";

/// A client whose answers have well-formed details or none.
#[derive(Clone)]
pub(crate) struct WithoutMalformed<T>(pub(crate) T);

impl<T, B, A> Service<Request<B>> for WithoutMalformed<T>
where
    T: Service<Request<B>, Response = Response<A>>,
    T::Future: Send + 'static,
    A: 'static,
    T::Error: 'static,
{
    type Response = Response<WithoutMalformed<A>>;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async {
            let mut answer = answer.await?;
            remove_malformed(answer.headers_mut());
            Ok(answer.map(WithoutMalformed))
        })
    }
}

impl<A: Body + Unpin> Body for WithoutMalformed<A> {
    type Data = A::Data;
    type Error = A::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<A::Data>, A::Error>>> {
        let mut frame = ready!(Pin::new(&mut self.0).poll_frame(context));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            remove_malformed(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Removes details that are not in base64.
pub(crate) fn remove_malformed(headers: &mut HeaderMap) {
    if headers.contains_key(DETAILS) {
        let metadata = MetadataMap::from_headers(std::mem::take(headers));
        let is_malformed = metadata.get_all_bin(DETAILS).iter().any(|details| details.to_bytes().is_err());
        *headers = metadata.into_headers();
        if is_malformed {
            headers.remove(DETAILS);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, ready};

    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
    use prost::bytes::Bytes;
    use tonic::Code;

    use super::*;

    /// Answers each request with the same headers and trailers.
    #[derive(Clone)]
    struct Server {
        headers: HeaderMap,
        trailers: Option<HeaderMap>,
    }

    impl<B> Service<Request<B>> for Server {
        type Response = Response<Trailers>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<B>) -> Self::Future {
            let mut answer = Response::new(Trailers(self.trailers.clone()));
            *answer.headers_mut() = self.headers.clone();
            ready(Ok(answer))
        }
    }

    struct Trailers(Option<HeaderMap>);

    impl Body for Trailers {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|trailers| Ok(Frame::trailers(trailers))))
        }
    }

    fn status(details: &'static str) -> HeaderMap {
        [("grpc-status", "14"), ("grpc-message", "later"), (DETAILS, details)]
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .into_iter()
            .collect()
    }

    #[tokio::test]
    async fn malformed_details_count_as_none() {
        for (details, expected) in
            [("CAgSBWxhdGVy", &b"\x08\x08\x12\x05later"[..]), ("%%%", b""), ("CAgSB", b"")]
        {
            for is_trailer in [false, true] {
                let [headers, trailers] = match is_trailer {
                    false => [status(details), HeaderMap::new()],
                    true => [HeaderMap::new(), status(details)],
                };
                let server = Server { headers, trailers: Some(trailers) };
                let mut client = MetricsServiceClient::new(WithoutMalformed(server));
                let error = client.export(ExportMetricsServiceRequest::default()).await.unwrap_err();
                assert_eq!((error.code(), error.message()), (Code::Unavailable, "later"));
                assert_eq!(error.details(), expected, "{details}");
            }
        }
    }
}
