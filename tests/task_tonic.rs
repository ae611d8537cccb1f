//! `tower::TaskNameLayer` on a tonic server that a client reaches over the network, as the README shows it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::routing::post;
use futures_core::Stream;
use opentelemetry_instrumentation_runtime::tower::TaskNameLayer;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use support::grpc;
use support::tasks::{Fates, busy, fates, metrics, value};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tower_service::Service;

/// The frames of a stream. Each takes 5 ms.
struct Frames(mpsc::UnboundedReceiver<Bytes>);

impl Stream for Frames {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = self.0.poll_recv(context);
        if let Poll::Ready(Some(_)) = frame {
            busy(Duration::from_millis(5));
        }
        frame.map(|frame| frame.map(Ok))
    }
}

const STREAM: &str = "shop.Orders/Watch";

fn of(name: &str) -> Fates {
    fates(&metrics().snapshot(), name)
}

/// Waits until the tasks of a name have had these fates: the server learns later than the client that a stream has ended.
async fn until(name: &str, expected: Fates) {
    let start = Instant::now();
    while of(name) != expected {
        assert!(start.elapsed() < Duration::from_secs(60), "{name}: {:?}, not {expected:?}", of(name));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Calls the streaming method and returns the body of the response.
async fn watch(client: &mut Channel) -> tonic::body::Body {
    std::future::poll_fn(|context| client.poll_ready(context)).await.unwrap();
    let request = axum::http::Request::post(format!("/{STREAM}"))
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::empty())
        .unwrap();
    client.call(request).await.unwrap().into_body()
}

async fn next_frame(body: &mut tonic::body::Body) -> Option<Bytes> {
    let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
    frame.map(|frame| frame.unwrap().into_data().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_are_named_over_the_network_and_streams_are_live_until_they_end() {
    let (senders, mut streams) = mpsc::unbounded_channel();
    let handler = move || {
        let (send, receive) = mpsc::unbounded_channel();
        senders.send(send).unwrap();
        async { ([("content-type", "application/grpc")], Body::from_stream(Frames(receive))) }
    };
    let service = Routes::new(grpc::server()).into_axum_router();
    let service = Routes::from(service.route(&format!("/{STREAM}"), post(handler)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::builder().layer(TaskNameLayer::grpc()).add_routes(service);
    let server = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let mut channel = Channel::from_shared(url).unwrap().connect().await.unwrap();

    let mut client = MetricsServiceClient::new(channel.clone());
    for _ in 0..4 {
        client.export(ExportMetricsServiceRequest::default()).await.unwrap();
    }
    // The first one has shown that the method exists.
    until(grpc::METHOD, Fates { spawned: 3.0, completed: 3.0, ..Fates::default() }).await;
    let busy = value(&metrics().snapshot(), "busy.time", grpc::METHOD).unwrap();
    assert!(busy >= 0.0599, "{busy}");

    let first = watch(&mut channel).await;
    drop((first, streams.recv().await.unwrap()));
    let mut ends = watch(&mut channel).await;
    let sender = streams.recv().await.unwrap();
    let dropped = watch(&mut channel).await;
    let _open = streams.recv().await.unwrap();
    until(STREAM, Fates { spawned: 2.0, alive: 2.0, ..Fates::default() }).await;
    for _ in 0..3 {
        sender.send(Bytes::from_static(b"frame")).unwrap();
        assert_eq!(next_frame(&mut ends).await.unwrap(), "frame");
    }
    drop(sender);
    // The stream may end with an empty frame.
    while let Some(frame) = next_frame(&mut ends).await {
        assert_eq!(frame, "");
    }
    until(STREAM, Fates { spawned: 2.0, completed: 1.0, alive: 1.0, ..Fates::default() }).await;
    let busy = value(&metrics().snapshot(), "busy.time", STREAM).unwrap();
    assert!(busy >= 0.0149, "{busy}: three frames of 5 ms");
    drop(dropped);
    until(STREAM, Fates { spawned: 2.0, completed: 1.0, cancelled: 1.0, ..Fates::default() }).await;
    server.abort();
}
