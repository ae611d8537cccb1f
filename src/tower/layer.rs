//! The layer and the service that it makes.

use std::borrow::Cow;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::body::NamedBody;
use super::name::{By, Grpc, NameRequest, Route};
use super::response::ResponseFuture;

/// Counts the handling of each request as a task, in the metrics `rust.task.*`, under a name that the request's route
/// gives: `GET /order/{id}`.
///
/// The task begins when the service is called and ends with the last frame of the response's body, so that streams are
/// covered. It is cancelled if the connection ends before that. Time and memory of tasks that the handler spawns are not
/// part of it; name those by [`with_task_name`](crate::TaskExt::with_task_name) or [`spawn`](crate::spawn).
///
/// A process distinguishes 200 names ([`task_name_limit`](crate::Builder::task_name_limit)); the requests of later routes
/// are counted under `_OTHER`.
///
/// A request costs one look-up of its name, the two ends of a task and the counting of its polls. The layer allocates
/// nothing; axum boxes the wrapped body once.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskNameLayer<N = Route> {
    name: N,
}

impl TaskNameLayer<Route> {
    /// Names requests by method and route, such as `GET /order/{id}`, never by the raw path.
    ///
    /// The route is the one that axum's router has matched, with the feature `axum`. Add the layer by
    /// `Router::layer` or `Router::route_layer`: a layer around the whole router sees no route. A request without a route
    /// has its method as its name, `GET`, as in OpenTelemetry's conventions.
    pub fn new() -> Self {
        TaskNameLayer::default()
    }
}

impl TaskNameLayer<Grpc> {
    /// Names requests by gRPC service and method, such as `shop.Orders/Get`. Add it by tonic's `Server::layer`.
    ///
    /// A client can send any path. A method becomes a name once the service has answered it with anything but
    /// `UNIMPLEMENTED`; until then, its requests are counted under `_OTHER`.
    pub fn grpc() -> Self {
        TaskNameLayer { name: Grpc }
    }
}

impl<F> TaskNameLayer<By<F>> {
    /// Names requests by a closure.
    ///
    /// Return one of few names. A path or an id that the client chooses would soon use up the names of the process.
    ///
    /// ```
    /// use opentelemetry_instrumentation_runtime::tower::TaskNameLayer;
    ///
    /// let layer = TaskNameLayer::by(|request: &http::Request<()>| {
    ///     if request.uri().path().starts_with("/admin") { "admin" } else { "public" }
    /// });
    /// ```
    pub fn by<B, S>(name: F) -> Self
    where
        F: Fn(&Request<B>) -> S,
        S: Into<Cow<'static, str>>,
    {
        TaskNameLayer { name: By(name) }
    }
}

impl<S, N: Clone> Layer<S> for TaskNameLayer<N> {
    type Service = TaskNameService<S, N>;

    fn layer(&self, inner: S) -> Self::Service {
        TaskNameService { inner, name: self.name.clone() }
    }
}

/// A service whose requests are counted as tasks. Made by [`TaskNameLayer`].
#[derive(Clone, Copy, Debug)]
pub struct TaskNameService<S, N = Route> {
    inner: S,
    name: N,
}

impl<S, N, B, R> Service<Request<B>> for TaskNameService<S, N>
where
    S: Service<Request<B>, Response = Response<R>>,
    N: NameRequest<B>,
    R: Body,
{
    type Response = Response<NamedBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let name = self.name.name(&request);
        let is_head = request.method() == http::Method::HEAD;
        ResponseFuture::new(name, is_head, || self.inner.call(request))
    }
}
