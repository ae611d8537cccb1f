//! An OTLP receiver inside the process: gRPC and HTTP on one port, on its own thread. It keeps all exports and gives the
//! answers that the test sets.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::codec::CompressionEncoding;

/// A receiver on 127.0.0.1. Dropping it closes its port and all connections.
pub struct Receiver {
    address: SocketAddr,
    inbox: Arc<Inbox>,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// One export that was accepted.
#[derive(Clone, Debug)]
pub struct Export {
    /// The path of the request: `/v1/metrics`, or that of the gRPC method.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub message: ExportMetricsServiceRequest,
    /// The size of the message, without headers.
    pub bytes: usize,
    pub at: Instant,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum Answer {
    Take,
    TakeAfter(Duration),
    Reject {
        points: i64,
        message: &'static str,
    },
    Refuse {
        http: u16,
        grpc: tonic::Code,
        after: Option<Duration>,
        message: &'static str,
    },
    Hang,
    /// HTTP alone: a 200 with this body.
    Say {
        kind: &'static str,
        body: Vec<u8>,
    },
    /// HTTP alone: a 200 whose body never ends.
    Endless,
}

impl Receiver {
    /// Starts a receiver on a free port.
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    pub fn start_at(address: SocketAddr) -> Self {
        let inbox = Arc::new(Inbox::default());
        let (bound, address_of) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let app = app(Arc::clone(&inbox));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind(address).await.expect("the port is free");
                bound.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    served = async { axum::serve(listener, app).await } => served.unwrap(),
                    _ = stopped => {}
                }
            });
            // No connection may outlive the receiver.
            runtime.shutdown_background();
        });
        let address = address_of.recv().expect("the receiver has started");
        Receiver { address, inbox, thread: Some((stop, thread)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the value for `OTEL_EXPORTER_OTLP_ENDPOINT`, for either protocol.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the answers to the next requests. Those after them are accepted.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.inbox.lock().script.extend(answers);
    }

    /// Sets the answer to all requests from now on.
    pub fn always(&self, answer: Answer) {
        let mut state = self.inbox.lock();
        state.script.clear();
        state.always = Some(answer);
    }

    /// Returns the number of requests so far, accepted or not.
    pub fn requests(&self) -> usize {
        self.inbox.lock().requests
    }

    /// Returns all accepted exports.
    pub fn exports(&self) -> Vec<Export> {
        self.inbox.lock().exports.clone()
    }

    /// Returns the exports that were accepted since the last call.
    pub fn take(&self) -> Vec<Export> {
        std::mem::take(&mut self.inbox.lock().exports)
    }

    /// Returns the last accepted export.
    pub fn last(&self) -> Option<Export> {
        self.inbox.lock().exports.last().cloned()
    }

    /// Waits for this many exports.
    pub fn wait_for(&self, exports: usize, timeout: Duration) -> bool {
        self.wait(timeout, |state| state.exports.len() >= exports)
    }

    /// Waits for this many requests, accepted or not.
    pub fn wait_for_requests(&self, requests: usize, timeout: Duration) -> bool {
        self.wait(timeout, |state| state.requests >= requests)
    }

    fn wait(&self, timeout: Duration, enough: impl Fn(&State) -> bool) -> bool {
        let guard = self.inbox.lock();
        let waited = self.inbox.changed.wait_timeout_while(guard, timeout, |state| !enough(state));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

impl Export {
    pub fn metrics(&self) -> impl Iterator<Item = &Metric> {
        let scopes = self.message.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
        scopes.flat_map(|scope| &scope.metrics)
    }

    pub fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics().find(|metric| metric.name == name)
    }

    /// Returns the value of the metric's only point, or the count of a histogram.
    pub fn value(&self, name: &str) -> Option<f64> {
        match points(self.metric(name)?).as_slice() {
            [point] => Some(point.value),
            _ => None,
        }
    }

    pub fn resource(&self, key: &str) -> Option<String> {
        let attributes = &self.message.resource_metrics.first()?.resource.as_ref()?.attributes;
        attributes
            .iter()
            .find(|attribute| attribute.key == key)
            .map(|attribute| text(attribute.value.as_ref()))
    }
}

/// A point of any kind of metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub attributes: BTreeMap<String, String>,
    /// The value, or the count of a histogram.
    pub value: f64,
    /// The sum of a histogram's samples.
    pub sum: Option<f64>,
}

pub fn points(metric: &Metric) -> Vec<Point> {
    let numbers = match &metric.data {
        Some(metric::Data::Sum(sum)) => &sum.data_points,
        Some(metric::Data::Gauge(gauge)) => &gauge.data_points,
        Some(metric::Data::Histogram(histogram)) => {
            let point = |point: &opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint| Point {
                attributes: attributes(&point.attributes),
                value: point.count as f64,
                sum: point.sum,
            };
            return histogram.data_points.iter().map(point).collect();
        }
        _ => return Vec::new(),
    };
    let point = |point: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| Point {
        attributes: attributes(&point.attributes),
        value: match point.value {
            Some(number_data_point::Value::AsDouble(value)) => value,
            Some(number_data_point::Value::AsInt(value)) => value as f64,
            None => f64::NAN,
        },
        sum: None,
    };
    numbers.iter().map(point).collect()
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    list.iter().map(|attribute| (attribute.key.clone(), text(attribute.value.as_ref()))).collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    }
}

/// The state that the server and the test share.
#[derive(Default)]
struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    exports: Vec<Export>,
    requests: usize,
    script: VecDeque<Answer>,
    always: Option<Answer>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_answer(&self) -> Answer {
        let mut state = self.lock();
        state.requests += 1;
        self.changed.notify_all();
        state.script.pop_front().or_else(|| state.always.clone()).unwrap_or(Answer::Take)
    }

    fn keep(&self, path: &str, headers: &HeaderMap, message: ExportMetricsServiceRequest) {
        let header = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let bytes = message.encoded_len();
        let headers = headers.iter().map(header).collect();
        let export = Export { path: path.into(), headers, message, bytes, at: Instant::now() };
        self.lock().exports.push(export);
        self.changed.notify_all();
    }
}

fn app(inbox: Arc<Inbox>) -> axum::Router {
    let grpc =
        MetricsServiceServer::new(Grpc(Arc::clone(&inbox))).accept_compressed(CompressionEncoding::Gzip);
    tonic::service::Routes::new(grpc).into_axum_router().fallback(
        move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let inbox = Arc::clone(&inbox);
            async move { answer_http(&inbox, uri.path(), &headers, body).await }
        },
    )
}

async fn answer_http(inbox: &Inbox, path: &str, headers: &HeaderMap, body: Bytes) -> Response {
    let gzip = headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
    let mut plain = Vec::new();
    let plain = match gzip {
        true => flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).map(|_| plain.as_slice()),
        false => Ok(&*body),
    };
    let Ok(message) = ExportMetricsServiceRequest::decode(plain.unwrap_or(b"?")) else {
        return (StatusCode::BAD_REQUEST, "this is not OTLP").into_response();
    };
    let mut partial_success = None;
    match inbox.next_answer() {
        Answer::Take => {}
        Answer::TakeAfter(time) => tokio::time::sleep(time).await,
        Answer::Reject { points, message } => partial_success = rejected(points, message),
        Answer::Refuse { http, after, message, .. } => {
            let status = StatusCode::from_u16(http).unwrap();
            return match after {
                Some(time) => {
                    (status, [("retry-after", time.as_secs().to_string())], message).into_response()
                }
                None => (status, message).into_response(),
            };
        }
        Answer::Hang => std::future::pending().await,
        Answer::Say { kind, body } => return ([("content-type", kind)], body).into_response(),
        Answer::Endless => {
            let body = Body::from_stream(Forever);
            return ([("content-type", "application/x-protobuf")], body).into_response();
        }
    }
    inbox.keep(path, headers, message);
    let answer = ExportMetricsServiceResponse { partial_success };
    ([("content-type", "application/x-protobuf")], answer.encode_to_vec()).into_response()
}

fn rejected(points: i64, message: &str) -> Option<ExportMetricsPartialSuccess> {
    Some(ExportMetricsPartialSuccess { rejected_data_points: points, error_message: message.into() })
}

/// A body without an end.
struct Forever;

impl futures_core::Stream for Forever {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(Some(Ok(Bytes::from_static(&[0; 4096]))))
    }
}

struct Grpc(Arc<Inbox>);

#[tonic::async_trait]
impl MetricsService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let (metadata, _, message) = request.into_parts();
        let mut partial_success = None;
        match self.0.next_answer() {
            Answer::Take => {}
            Answer::TakeAfter(time) => tokio::time::sleep(time).await,
            Answer::Reject { points, message } => partial_success = rejected(points, message),
            Answer::Refuse { grpc, after, message, .. } => {
                use tonic_types::{ErrorDetails, StatusExt};
                return Err(match after {
                    Some(time) => tonic::Status::with_error_details(
                        grpc,
                        message,
                        ErrorDetails::with_retry_info(Some(time)),
                    ),
                    None => tonic::Status::new(grpc, message),
                });
            }
            Answer::Hang => std::future::pending().await,
            Answer::Say { .. } | Answer::Endless => panic!("this answer is for HTTP"),
        }
        self.0.keep(
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            &metadata.into_headers(),
            message,
        );
        Ok(tonic::Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}
