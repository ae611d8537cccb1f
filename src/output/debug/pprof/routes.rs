//! The answers to requests for profiles.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use maud::{DOCTYPE, html};
use tokio::sync::Semaphore;

use super::endpoint::{ENDPOINTS, Endpoint, status};
use super::flame;
use super::request::{Form, Request};
use super::work::{Client, on_thread};
use crate::output::debug::guard::SYMBOL;
use crate::output::debug::page::head;
use crate::output::debug::vars::command_line;
use crate::profile;

const TEXT: &str = "text/plain; charset=utf-8";
/// The most profiles that are taken at the same time. Each needs a thread, and memory for its stacks.
const MAX_PROFILES: usize = 4;
/// The most addresses that `symbol` looks up.
const MAX_ADDRESSES: usize = 10_000;
/// The longest body of a request for names, in bytes.
const MAX_BODY: usize = 256 << 10;

pub(crate) fn router(shows_command_line: bool) -> Router {
    let permits = Arc::new(Semaphore::new(MAX_PROFILES));
    let index = || async { ([(CONTENT_TYPE, "text/html; charset=utf-8")], index()) };
    let by_query = Arc::clone(&permits);
    let by_body = Arc::clone(&permits);
    let look_up = get(move |uri: Uri| async move { symbol(uri.query().unwrap_or_default(), by_query).await })
        .post(move |addresses: String| async move { symbol(&addresses, by_body).await })
        .layer(DefaultBodyLimit::max(MAX_BODY));
    let mut router = Router::new()
        .route("/debug/pprof", get(index))
        .route("/debug/pprof/", get(index))
        .route("/debug/pprof/cmdline", get(move || async move { cmdline(shows_command_line) }))
        .route(SYMBOL, look_up)
        .merge(flame::router(&permits));
    for endpoint in ENDPOINTS {
        for name in [Some(endpoint.name), endpoint.alias].into_iter().flatten() {
            let permits = Arc::clone(&permits);
            let handler = get(move |uri: Uri| answer(endpoint, uri, permits));
            router = router.route(&format!("/debug/pprof/{name}"), handler);
        }
    }
    router
}

fn index() -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { (head("Profiles", "/debug/runtime/")) }
            body {
                header { h1 { "Profiles" } nav { a href="/debug/runtime" { "runtime" } } }
                ul.profiles {
                    @for endpoint in ENDPOINTS {
                        li {
                            a href={ "/debug/pprof/" (endpoint.name) } { (endpoint.name) }
                            " (" a href={ "/debug/pprof/" (endpoint.name) "?debug=1" } { "text" } ", "
                            a href={ "/debug/runtime/flame/" (endpoint.name) } { "flame graph" } "): "
                            (endpoint.about)
                        }
                    }
                }
                p {
                    "Read them with " code { "go tool pprof URL" } ". With " code { "seconds=N" }
                    ", from 1 to 300, a profile shows the change in that time."
                }
            }
        }
    };
    page.into_string()
}

async fn answer(endpoint: &'static Endpoint, uri: Uri, permits: Arc<Semaphore>) -> Response {
    let request = match Request::parse(uri.query().unwrap_or_default()) {
        Ok(request) => request,
        Err(problem) => return text(StatusCode::BAD_REQUEST, problem),
    };
    let Ok(permit) = permits.try_acquire_owned() else { return too_many() };
    let work = move |client: &Client| {
        // Held until the thread ends, which can be later than the request.
        let _permit = permit;
        let profile = endpoint.take(request.seconds, client)?;
        Ok(match request.form {
            Form::Text => profile.to_string().into_bytes(),
            Form::Pprof => profile.to_pprof(),
        })
    };
    match on_thread(work).await {
        Some(Ok(body)) if request.form == Form::Text => ([(CONTENT_TYPE, TEXT)], body).into_response(),
        Some(Ok(body)) => {
            let file = format!("attachment; filename=\"{}.pb.gz\"", endpoint.name);
            ([(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_DISPOSITION, file)], body)
                .into_response()
        }
        Some(Err(error)) => text(status(&error), error.to_string()),
        None => text(StatusCode::INTERNAL_SERVER_ERROR, "could not take the profile".to_owned()),
    }
}

fn too_many() -> Response {
    text(StatusCode::TOO_MANY_REQUESTS, format!("{MAX_PROFILES} profiles are being taken; try again later"))
}

fn text(status: StatusCode, message: String) -> Response {
    (status, [(CONTENT_TYPE, TEXT)], format!("{message}\n")).into_response()
}

/// The arguments, separated by NUL as in Go.
fn cmdline(shown: bool) -> Response {
    if !shown {
        return text(StatusCode::FORBIDDEN, "the command line is hidden; see `command_line`".to_owned());
    }
    ([(CONTENT_TYPE, TEXT)], command_line(true).join("\0")).into_response()
}

/// Names functions by their addresses: `0x1234+0x5678`, in the query or, as Go's tool sends them, in the body.
async fn symbol(addresses: &str, permits: Arc<Semaphore>) -> Response {
    let number =
        |text: &str| usize::from_str_radix(text.strip_prefix("0x")?, 16).ok().filter(|number| *number > 0);
    let addresses: Vec<_> = addresses.trim().split('+').filter_map(number).take(MAX_ADDRESSES).collect();
    let mut answer = "num_symbols: 1\n".to_owned();
    if addresses.is_empty() {
        return ([(CONTENT_TYPE, TEXT)], answer).into_response();
    }
    let Ok(permit) = permits.try_acquire_owned() else { return too_many() };
    let names = on_thread(move |_| {
        let _permit = permit;
        profile::names(&addresses)
    });
    for (address, name) in names.await.unwrap_or_default() {
        answer.push_str(&format!("{address:#x} {name}\n"));
    }
    ([(CONTENT_TYPE, TEXT)], answer).into_response()
}
