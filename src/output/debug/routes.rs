//! The routes of the endpoints.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};

use super::guard::{self, Hosts};
use super::page;
use super::sampler::{Feed, Moment};

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";
/// Ends connections whose client no longer reads. Browsers reconnect.
pub(super) const MAX_EVENTS: usize = 600;
const RECONNECT_AFTER: Duration = Duration::from_millis(200);

pub(super) fn router(feed: Feed, hosts: Hosts, shows_command_line: bool) -> Router {
    let hosts = Arc::new(hosts);
    #[cfg(feature = "profile")]
    let profiles = super::pprof::router(shows_command_line);
    #[cfg(not(feature = "profile"))]
    let (profiles, _) = (Router::new(), shows_command_line);
    Router::new()
        .route("/debug/vars", get(vars))
        .route("/debug/metrics.json", get(metrics))
        .route("/debug/events", get(events))
        .route("/debug/runtime", get(runtime))
        .route("/debug/runtime/plots", get(plots))
        .route(
            "/debug/runtime/page.js",
            get(|| async { typed("text/javascript; charset=utf-8", page::SCRIPT) }),
        )
        .route("/debug/runtime/page.css", get(|| async { typed("text/css; charset=utf-8", page::STYLE) }))
        .with_state(feed)
        .merge(profiles)
        .layer(middleware::from_fn_with_state(hosts, guard::guard))
}

async fn vars(State(feed): State<Feed>) -> Response {
    typed(JSON, latest(&feed).vars())
}

async fn metrics(State(feed): State<Feed>) -> Response {
    typed(JSON, latest(&feed).json())
}

async fn runtime(State(feed): State<Feed>) -> Response {
    typed(HTML, page::page(&latest(&feed).plots()))
}

async fn events(State(feed): State<Feed>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    stream(feed, |_| true, Moment::json)
}

async fn plots(State(feed): State<Feed>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    stream(feed, Moment::has_news, Moment::plots)
}

fn stream(
    feed: Feed,
    send: fn(&Moment) -> bool,
    answer: fn(&Moment) -> Bytes,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let moments = WatchStream::new(feed).filter(move |moment| send(moment));
    let events = moments.take(MAX_EVENTS).map(move |moment| {
        // An event cannot carry a carriage return. Neither the JSON nor the HTML contains one.
        let event = Event::default().data(String::from_utf8_lossy(&answer(&moment)));
        Ok(event.retry(RECONNECT_AFTER))
    });
    Sse::new(events)
}

fn latest(feed: &Feed) -> Arc<Moment> {
    Arc::clone(&feed.borrow())
}

fn typed(content_type: &'static str, body: impl IntoResponse) -> Response {
    ([(CONTENT_TYPE, content_type)], body).into_response()
}
