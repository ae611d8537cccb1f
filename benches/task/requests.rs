//! Measures a request with and without `tower::TaskNameLayer`, alone and under axum's router, without a network.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::http::{Request, Response};
use axum::routing::get;
use axum::{Router, middleware::ResponseAxumBodyLayer};
use opentelemetry_instrumentation_runtime::measure;
use opentelemetry_instrumentation_runtime::tower::TaskNameLayer;
use tower_layer::Layer;
use tower_service::Service;

use crate::median;

const ROUNDS: usize = 41;
const CALLS: usize = 5_000;

/// Answers at once.
#[derive(Clone)]
struct Answers;

impl Service<Request<Body>> for Answers {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Body::from("hello"))))
    }
}

pub(crate) fn compare() {
    println!("\na request, median ns of {ROUNDS} rounds, and its allocations");
    row("a service", Answers);
    row("with a closure's name", TaskNameLayer::by(|_: &Request<Body>| "bench").layer(Answers));
    row("with a gRPC method's name", TaskNameLayer::grpc().layer(Answers));
    let app = || Router::new().route("/order/{id}/{part}", get(async || "hello"));
    row::<Router, _>("an axum route", app());
    row::<Router, _>("an axum route, a layer that boxes the body", app().layer(ResponseAxumBodyLayer));
    row::<Router, _>("an axum route, named", app().layer(TaskNameLayer::new()));
}

fn row<S, B>(name: &str, mut service: S)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: HttpBody,
{
    let mut call = || {
        let request = Request::get("/order/17/3").body(Body::empty()).expect("a request");
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut context) else {
            panic!("it answers at once")
        };
        let mut body = pin!(response.into_body());
        while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut context) {
            black_box(frame.is_ok());
        }
    };
    (0..CALLS).for_each(|_| call());
    let allocations = measure(&mut call).1.allocations;
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| call());
        start.elapsed().as_nanos() as f64 / CALLS as f64
    });
    println!("{name:<48} {:>8.1} {allocations:>4}", median(times.collect()));
}
