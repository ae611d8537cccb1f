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

const ROUNDS: usize = 401;
const CALLS: usize = 500;

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

/// The kinds of requests.
const KINDS: [&str; 6] = [
    "a service",
    "with a closure's name",
    "with a gRPC method's name",
    "an axum route",
    "an axum route, a layer that boxes the body",
    "an axum route, named",
];

pub(crate) fn compare() {
    println!("\na request, ns in the fastest of {ROUNDS} rounds, and its allocations");
    let mut calls = KINDS.map(kind);
    let mut times = KINDS.map(|_| Vec::new());
    let allocations = calls.each_mut().map(|call| {
        (0..CALLS).for_each(|_| call());
        measure(call).1.allocations
    });
    // The kinds take turns, since the machine's speed changes.
    for _ in 0..ROUNDS {
        for (call, times) in calls.iter_mut().zip(&mut times) {
            let start = Instant::now();
            (0..CALLS).for_each(|_| call());
            times.push(start.elapsed().as_nanos() as f64 / CALLS as f64);
        }
    }
    for ((kind, times), allocations) in KINDS.iter().zip(times).zip(allocations) {
        // The fastest round is the one that other programs have disturbed least.
        let fastest = times.into_iter().fold(f64::INFINITY, f64::min);
        println!("{kind:<48} {fastest:>8.1} {allocations:>4}");
    }
}

/// Makes many requests of one kind, for callgrind. Returns false if there is no such kind.
pub(crate) fn repeat(name: &str) -> bool {
    let Some(name) = KINDS.iter().find(|kind| **kind == name) else { return false };
    let mut call = kind(name);
    (0..100_000).for_each(|_| call());
    true
}

fn kind(name: &str) -> Box<dyn FnMut()> {
    let app = || Router::new().route("/order/{id}/{part}", get(async || "hello"));
    match name {
        "with a closure's name" => caller(TaskNameLayer::by(|_: &Request<Body>| "bench").layer(Answers)),
        "with a gRPC method's name" => caller(TaskNameLayer::grpc().layer(Answers)),
        "an axum route" => caller(app()),
        "an axum route, a layer that boxes the body" => caller(app().layer(ResponseAxumBodyLayer)),
        "an axum route, named" => caller(app().layer(TaskNameLayer::new())),
        _ => caller(Answers),
    }
}

/// Returns a function that makes one request.
fn caller<S, B>(mut service: S) -> Box<dyn FnMut()>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + 'static,
    B: HttpBody,
{
    Box::new(move || {
        let request = Request::get("/order/17/3").body(Body::empty()).expect("a request");
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut context) else {
            panic!("it answers at once")
        };
        let mut body = pin!(response.into_body());
        while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut context) {
            black_box(frame.is_ok());
        }
    })
}
