//! `tower::TaskNameLayer` names requests, on axum and on tonic.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response};
use axum::routing::{get, post};
use futures_core::Stream;
use opentelemetry_instrumentation_runtime::tower::TaskNameLayer;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use support::grpc;
use support::tasks::{Fates, busy, fates, metrics, names, value};
use tokio::sync::mpsc;
use tower_layer::Layer;
use tower_service::Service;

/// Sends a request without a network.
async fn call<S, B>(service: &mut S, method: &str, path: &str) -> Response<B>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
{
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    match service.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn of(name: &str) -> Fates {
    fates(&metrics().snapshot(), name)
}

fn is_known(name: &str) -> bool {
    names(&metrics().snapshot()).iter().any(|known| known == name)
}

#[tokio::test]
async fn requests_are_named_by_method_and_route() {
    let mut app = Router::new()
        .route("/tower/order/{id}", get(async || "one").post(async || "made"))
        .nest("/tower/admin", Router::new().route("/user/{name}", get(async || "user")))
        .layer(TaskNameLayer::new());
    for id in 0..3 {
        let response = call(&mut app, "GET", &format!("/tower/order/{id}")).await;
        assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), "one");
    }
    drop(to_bytes(call(&mut app, "POST", "/tower/order/7").await.into_body(), 100).await.unwrap());
    drop(to_bytes(call(&mut app, "GET", "/tower/admin/user/ann").await.into_body(), 100).await.unwrap());
    drop(call(&mut app, "HEAD", "/tower/order/7").await);
    let completed = |count| Fates { spawned: count, completed: count, ..Fates::default() };
    assert_eq!(of("GET /tower/order/{id}"), completed(3.0));
    assert_eq!(of("POST /tower/order/{id}"), completed(1.0));
    assert_eq!(of("GET /tower/admin/user/{name}"), completed(1.0));
    assert_eq!(of("HEAD /tower/order/{id}"), completed(1.0), "its body is never read");
    assert!(!names(&metrics().snapshot()).iter().any(|name| name.contains("/7") || name.contains("ann")));
}

#[tokio::test]
async fn a_request_without_a_route_is_named_by_its_method() {
    let mut app = Router::<()>::new().fallback(async || "nothing here").layer(TaskNameLayer::new());
    for (method, name) in [("PATCH", "PATCH"), ("BREW", "HTTP")] {
        drop(to_bytes(call(&mut app, method, "/tower/secret").await.into_body(), 100).await.unwrap());
        assert_eq!(of(name), Fates { spawned: 1.0, completed: 1.0, ..Fates::default() }, "{name}");
    }
    assert!(!names(&metrics().snapshot()).iter().any(|name| name.contains("secret")));
}

#[tokio::test]
async fn the_work_of_a_handler_and_of_its_body_is_counted() {
    let worker = async || {
        busy(Duration::from_millis(20));
        drop(std::hint::black_box(vec![0u8; 1 << 20]));
        let (send, receive) = mpsc::unbounded_channel();
        send.send(20).unwrap();
        Body::from_stream(Chunks(receive))
    };
    let mut app = Router::new().route("/tower/work", get(worker)).layer(TaskNameLayer::new());
    drop(to_bytes(call(&mut app, "GET", "/tower/work").await.into_body(), 1000).await.unwrap());
    let busy = value(&metrics().snapshot(), "busy.time", "GET /tower/work").unwrap();
    assert!(busy >= 0.0399, "{busy}: 20 ms in the handler and 20 ms in the body");
    assert_eq!(of("GET /tower/work").completed, 1.0);
}

/// Takes this many milliseconds for each chunk.
struct Chunks(mpsc::UnboundedReceiver<u64>);

impl Stream for Chunks {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|chunk| {
            chunk.map(|milliseconds| {
                busy(Duration::from_millis(milliseconds));
                Ok(Bytes::from_static(b"chunk"))
            })
        })
    }
}

#[tokio::test]
async fn a_stream_is_live_until_it_ends_and_cancelled_if_it_is_dropped() {
    let (senders, mut streams) = mpsc::unbounded_channel();
    let handler = move || {
        let (send, receive) = mpsc::unbounded_channel();
        senders.send(send).unwrap();
        async { Body::from_stream(Chunks(receive)) }
    };
    let mut app = Router::new().route("/tower/stream", get(handler)).layer(TaskNameLayer::new());
    let name = "GET /tower/stream";
    let first = call(&mut app, "GET", "/tower/stream").await.into_body();
    let second = call(&mut app, "GET", "/tower/stream").await.into_body();
    assert_eq!(of(name), Fates { spawned: 2.0, alive: 2.0, ..Fates::default() });
    let sender = streams.recv().await.unwrap();
    sender.send(0).unwrap();
    drop(sender);
    assert_eq!(to_bytes(first, 100).await.unwrap(), "chunk");
    assert_eq!(of(name), Fates { spawned: 2.0, completed: 1.0, alive: 1.0, ..Fates::default() });
    drop(second);
    assert_eq!(of(name), Fates { spawned: 2.0, completed: 1.0, cancelled: 1.0, ..Fates::default() });
}

#[tokio::test]
async fn a_body_of_known_length_ends_with_its_last_byte() {
    let handler = async || {
        let (send, receive) = mpsc::unbounded_channel();
        send.send(0).unwrap();
        // The channel stays open: only the length shows the server that the body has ended.
        std::mem::forget(send);
        ([("content-length", "5")], Body::from_stream(Chunks(receive)))
    };
    let mut app = Router::new().route("/tower/length", get(handler)).layer(TaskNameLayer::new());
    let mut body = call(&mut app, "GET", "/tower/length").await.into_body().into_data_stream();
    let chunk = std::future::poll_fn(|context| Pin::new(&mut body).poll_next(context)).await;
    assert_eq!(chunk.unwrap().unwrap(), "chunk");
    assert_eq!(of("GET /tower/length").completed, 1.0);
}

#[tokio::test]
async fn a_handler_that_panics_or_is_dropped_has_that_outcome() {
    let mut app = Router::new()
        .route("/tower/panic", get(async || if true { panic!("as it should") } else { "" }))
        .route("/tower/pending", post(async || std::future::pending::<String>().await))
        .layer(TaskNameLayer::new());
    let mut service = app.clone();
    let panicked =
        tokio::spawn(async move { call(&mut service, "GET", "/tower/panic").await.status() }).await;
    panicked.unwrap_err();
    let pending = call(&mut app, "POST", "/tower/pending");
    tokio::time::timeout(Duration::from_millis(1), pending).await.unwrap_err();
    assert_eq!(of("GET /tower/panic"), Fates { spawned: 1.0, panicked: 1.0, ..Fates::default() });
    assert_eq!(of("POST /tower/pending"), Fates { spawned: 1.0, cancelled: 1.0, ..Fates::default() });
}

#[tokio::test]
async fn a_closure_names_requests_too() {
    let layer = TaskNameLayer::by(|request: &Request<Body>| match request.uri().path() {
        "/tower/a" => "tower: a",
        _ => "tower: rest",
    });
    let mut app = Router::<()>::new().fallback(async || "").layer(layer);
    for path in ["/tower/a", "/tower/b", "/tower/c"] {
        drop(to_bytes(call(&mut app, "GET", path).await.into_body(), 100).await.unwrap());
    }
    assert_eq!((of("tower: a").completed, of("tower: rest").completed), (1.0, 2.0));
}

#[tokio::test]
async fn grpc_requests_are_named_by_service_and_method() {
    let service = TaskNameLayer::grpc().layer(grpc::server());
    let mut unknown = service.clone();
    let mut client = MetricsServiceClient::new(service);
    for _ in 0..4 {
        client.export(ExportMetricsServiceRequest::default()).await.unwrap();
    }
    // The first one has shown that the method exists.
    assert_eq!(of(grpc::METHOD), Fates { spawned: 3.0, completed: 3.0, ..Fates::default() });
    let busy = value(&metrics().snapshot(), "busy.time", grpc::METHOD).unwrap();
    assert!(busy >= 0.0599, "{busy}");
    for path in ["/opentelemetry.proto.collector.metrics.v1.MetricsService/Nothing", "/what/ever", "/a/b/c"] {
        for _ in 0..2 {
            drop(call(&mut unknown, "POST", path).await);
        }
        assert!(!is_known(path.trim_start_matches('/')), "{path}");
    }
    assert!(is_known("_OTHER"));
}
