//! The list of profiles, and the answers to requests for them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use maud::{DOCTYPE, html};
use tokio::sync::Semaphore;

use super::request::{DEFAULT_CPU, Form, Request};
use super::work::{Client, on_thread};
use crate::output::debug::page::head;
use crate::output::debug::vars::command_line;
use crate::profile::{self, Error, Profile};

const TEXT: &str = "text/plain; charset=utf-8";
/// The most profiles that are taken at the same time. Each needs a thread, and memory for its stacks.
const MAX_PROFILES: usize = 4;
/// The most addresses that `symbol` looks up.
const MAX_ADDRESSES: usize = 1000;

/// The profiles, in the order of the index.
static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        name: "heap",
        alias: None,
        about: "which code holds memory, by sampled allocations; needs a heap profile that runs",
        take: Take::Now(profile::heap),
    },
    Endpoint {
        name: "allocs",
        alias: None,
        about: "which code has allocated memory since the heap profile was started",
        take: Take::Now(profile::allocs),
    },
    Endpoint {
        name: "stalls",
        alias: Some("block"),
        about: "what Tokio's workers did while they were stalled, by time",
        take: Take::Now(profile::stalls),
    },
    Endpoint {
        name: "tasks",
        alias: Some("goroutine"),
        about: "the tasks that live, by name",
        take: Take::Now(profile::tasks),
    },
    Endpoint {
        name: "threads",
        alias: None,
        about: "the stack of every thread at present",
        take: Take::Now(profile::threads),
    },
    Endpoint {
        name: "profile",
        alias: None,
        about: "which code uses CPU time, for 30 seconds or those of the parameter; one at a time",
        take: Take::Cpu,
    },
];

struct Endpoint {
    name: &'static str,
    /// The name of the same profile in Go.
    alias: Option<&'static str>,
    about: &'static str,
    take: Take,
}

enum Take {
    /// Takes the profile of this moment; with `seconds`, the change in that time.
    Now(fn() -> Profile),
    /// Takes a profile of the CPU time from now on.
    Cpu,
}

pub(crate) fn router(shows_command_line: bool) -> Router {
    let permits = Arc::new(Semaphore::new(MAX_PROFILES));
    let index = || async { ([(CONTENT_TYPE, "text/html; charset=utf-8")], index()) };
    let symbols = Arc::clone(&permits);
    let mut router = Router::new()
        .route("/debug/pprof", get(index))
        .route("/debug/pprof/", get(index))
        .route("/debug/pprof/cmdline", get(move || async move { cmdline(shows_command_line) }))
        .route("/debug/pprof/symbol", get(move |uri: Uri| symbol(uri, symbols)));
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
                            " (" a href={ "/debug/pprof/" (endpoint.name) "?debug=1" } { "text" } "): "
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
        let profile = take(endpoint, request.seconds, client)?;
        if let Some(error) = profile.error().filter(|_| is_empty_by_error(&profile)) {
            return Err(error.clone());
        }
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

fn take(endpoint: &Endpoint, seconds: Option<Duration>, client: &Client) -> Result<Profile, Error> {
    match (&endpoint.take, seconds) {
        (Take::Now(take), None) => Ok(take()),
        (Take::Now(take), Some(seconds)) => {
            let earlier = take();
            if is_empty_by_error(&earlier) || !client.wait(seconds) {
                return Ok(earlier);
            }
            Ok(take().delta(&earlier))
        }
        (Take::Cpu, seconds) => {
            profile::cpu_while(seconds.unwrap_or(DEFAULT_CPU), |pause| client.wait(pause))
        }
    }
}

fn is_empty_by_error(profile: &Profile) -> bool {
    profile.error().is_some() && profile.samples().is_empty()
}

fn status(error: &Error) -> StatusCode {
    match error {
        Error::AlreadyRunning => StatusCode::CONFLICT,
        Error::InvalidDuration => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
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

/// Names functions by their addresses: `?0x1234+0x5678`.
async fn symbol(uri: Uri, permits: Arc<Semaphore>) -> Response {
    let number =
        |text: &str| usize::from_str_radix(text.strip_prefix("0x")?, 16).ok().filter(|number| *number > 0);
    let query = uri.query().unwrap_or_default();
    let addresses: Vec<_> = query.split('+').filter_map(number).take(MAX_ADDRESSES).collect();
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
