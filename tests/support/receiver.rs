//! An OTLP receiver inside the process: gRPC and HTTP on one port, the latter in protobuf and JSON, on its own thread. It
//! keeps all exports and gives the answers that the test sets, of metrics and of profiles apart.

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
use opentelemetry_proto::tonic::collector::profiles::v1development::profiles_service_server::{
    ProfilesService, ProfilesServiceServer,
};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesPartialSuccess, ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use prost::Message;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::codec::CompressionEncoding;

/// A receiver on 127.0.0.1. Dropping it closes its port and all connections.
pub struct Receiver {
    address: SocketAddr,
    inbox: Arc<Inbox<ExportMetricsServiceRequest>>,
    profiles: Arc<Inbox<ExportProfilesServiceRequest>>,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// One export that was accepted.
#[derive(Clone, Debug)]
pub struct Export<M = ExportMetricsServiceRequest> {
    /// The path of the request: `/v1/metrics`, or that of the gRPC method.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub message: M,
    /// The size of the message, without headers.
    pub bytes: usize,
    /// The same as it was sent, perhaps compressed. 0 over gRPC.
    pub sent: usize,
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
        let profiles = Arc::new(Inbox::default());
        let (bound, address_of) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let app = app(Arc::clone(&inbox), Arc::clone(&profiles));
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
        Receiver { address, inbox, profiles, thread: Some((stop, thread)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the value for `OTEL_EXPORTER_OTLP_ENDPOINT`, for either protocol.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the profiles' side, which has its own answers.
    pub fn profiles(&self) -> &Inbox<ExportProfilesServiceRequest> {
        &self.profiles
    }
}

/// The metrics' side.
impl std::ops::Deref for Receiver {
    type Target = Inbox<ExportMetricsServiceRequest>;

    fn deref(&self) -> &Self::Target {
        &self.inbox
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

/// The state of one signal, which the server and the test share.
pub struct Inbox<M> {
    state: Mutex<State<M>>,
    changed: Condvar,
}

struct State<M> {
    exports: Vec<Export<M>>,
    requests: usize,
    script: VecDeque<Answer>,
    always: Option<Answer>,
}

impl<M> Default for Inbox<M> {
    fn default() -> Self {
        let state = State { exports: Vec::new(), requests: 0, script: VecDeque::new(), always: None };
        Inbox { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<M: Message + Clone> Inbox<M> {
    /// Sets the answers to the next requests. Those after them are accepted.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.lock().script.extend(answers);
    }

    /// Sets the answer to all requests from now on.
    pub fn always(&self, answer: Answer) {
        let mut state = self.lock();
        state.script.clear();
        state.always = Some(answer);
    }

    /// Returns the number of requests so far, accepted or not.
    pub fn requests(&self) -> usize {
        self.lock().requests
    }

    /// Returns all accepted exports.
    pub fn exports(&self) -> Vec<Export<M>> {
        self.lock().exports.clone()
    }

    /// Returns the exports that were accepted since the last call.
    pub fn take(&self) -> Vec<Export<M>> {
        std::mem::take(&mut self.lock().exports)
    }

    /// Returns the last accepted export.
    pub fn last(&self) -> Option<Export<M>> {
        self.lock().exports.last().cloned()
    }

    /// Waits for this many exports.
    pub fn wait_for(&self, exports: usize, timeout: Duration) -> bool {
        self.wait(timeout, |state| state.exports.len() >= exports)
    }

    /// Waits for this many requests, accepted or not.
    pub fn wait_for_requests(&self, requests: usize, timeout: Duration) -> bool {
        self.wait(timeout, |state| state.requests >= requests)
    }

    fn wait(&self, timeout: Duration, enough: impl Fn(&State<M>) -> bool) -> bool {
        let guard = self.lock();
        let waited = self.changed.wait_timeout_while(guard, timeout, |state| !enough(state));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_answer(&self) -> Answer {
        let mut state = self.lock();
        state.requests += 1;
        self.changed.notify_all();
        state.script.pop_front().or_else(|| state.always.clone()).unwrap_or(Answer::Take)
    }

    fn keep(&self, path: &str, headers: &HeaderMap, message: M, sent: usize) {
        let header = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let bytes = message.encoded_len();
        let headers = headers.iter().map(header).collect();
        let export = Export { path: path.into(), headers, message, bytes, sent, at: Instant::now() };
        self.lock().exports.push(export);
        self.changed.notify_all();
    }
}

/// The path of profiles over HTTP. Metrics have any other one.
pub const PROFILES_PATH: &str = "/v1development/profiles";

fn app(
    inbox: Arc<Inbox<ExportMetricsServiceRequest>>,
    profiles: Arc<Inbox<ExportProfilesServiceRequest>>,
) -> axum::Router {
    let metrics_service = MetricsServiceServer::new(Grpc(Arc::clone(&inbox)));
    let profiles_service = ProfilesServiceServer::new(Grpc(Arc::clone(&profiles)));
    let mut grpc = tonic::service::Routes::new(metrics_service.accept_compressed(CompressionEncoding::Gzip));
    grpc = grpc.add_service(profiles_service.accept_compressed(CompressionEncoding::Gzip));
    grpc.into_axum_router().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let (inbox, profiles) = (Arc::clone(&inbox), Arc::clone(&profiles));
        async move {
            match uri.path() {
                path if path.ends_with(PROFILES_PATH) => answer_http(&profiles, path, &headers, body).await,
                path => answer_http(&inbox, path, &headers, body).await,
            }
        }
    })
}

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

/// The answers to both signals have the same form.
async fn answer_http<M>(inbox: &Inbox<M>, path: &str, headers: &HeaderMap, body: Bytes) -> Response
where
    M: Message + Clone + Default + DeserializeOwned,
{
    let gzip = headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
    let json = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == JSON);
    let mut plain = Vec::new();
    let plain = match gzip {
        true => flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).map(|_| plain.as_slice()),
        false => Ok(&*body),
    };
    let plain = plain.unwrap_or(b"?");
    let message = if json { serde_json::from_slice(plain).ok() } else { M::decode(plain).ok() };
    let Some(message) = message else {
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
            return ([("content-type", PROTOBUF)], body).into_response();
        }
    }
    inbox.keep(path, headers, message, body.len());
    let answer = ExportMetricsServiceResponse { partial_success };
    let (kind, body) = match json {
        true => (JSON, serde_json::to_vec(&answer).unwrap()),
        false => (PROTOBUF, answer.encode_to_vec()),
    };
    ([("content-type", kind)], body).into_response()
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

struct Grpc<M>(Arc<Inbox<M>>);

impl<M: Message + Clone> Grpc<M> {
    /// Returns how many items are rejected, and why.
    async fn answer(
        &self,
        path: &str,
        request: tonic::Request<M>,
    ) -> Result<Option<(i64, &str)>, tonic::Status> {
        let (metadata, _, message) = request.into_parts();
        let mut rejected = None;
        match self.0.next_answer() {
            Answer::Take => {}
            Answer::TakeAfter(time) => tokio::time::sleep(time).await,
            Answer::Reject { points, message } => rejected = Some((points, message)),
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
        self.0.keep(path, &metadata.into_headers(), message, 0);
        Ok(rejected)
    }
}

#[tonic::async_trait]
impl MetricsService for Grpc<ExportMetricsServiceRequest> {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let path = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
        let rejected = self.answer(path, request).await?;
        let partial_success = rejected.and_then(|(points, message)| self::rejected(points, message));
        Ok(tonic::Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl ProfilesService for Grpc<ExportProfilesServiceRequest> {
    async fn export(
        &self,
        request: tonic::Request<ExportProfilesServiceRequest>,
    ) -> Result<tonic::Response<ExportProfilesServiceResponse>, tonic::Status> {
        let path = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
        let rejected = self.answer(path, request).await?;
        let partial_success = rejected.map(|(rejected_profiles, message)| ExportProfilesPartialSuccess {
            rejected_profiles,
            error_message: message.into(),
        });
        Ok(tonic::Response::new(ExportProfilesServiceResponse { partial_success }))
    }
}
