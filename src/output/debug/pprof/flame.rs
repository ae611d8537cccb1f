//! Serves the pages with flame graphs, under `/debug/runtime/flame/`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use super::endpoint::{ENDPOINTS, Endpoint, Take, status};
use super::flame_page::{self, Content};
use super::moments::Moments;
use super::request::{Request, value};
use super::work::{Client, on_thread};
use crate::profile::{Error, View};

const HTML: &str = "text/html; charset=utf-8";
/// The folder of the pages.
const FOLDER: &str = "/debug/runtime/flame";

/// The request of a viewer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wish {
    /// The profile of this moment.
    Now,
    /// The profile of the next seconds.
    During(Duration),
    /// The change since a moment that was kept.
    Since(u64),
    /// A moment to be kept.
    Mark,
}

impl Wish {
    fn parse(query: &str) -> Result<Self, String> {
        if value(query, "mark").is_some() {
            return Ok(Wish::Mark);
        }
        if let Some(id) = value(query, "since") {
            return id.parse().map(Wish::Since).map_err(|_| "`since` must be a number".to_owned());
        }
        let seconds = Request::parse(query)?.seconds;
        Ok(seconds.map_or(Wish::Now, Wish::During))
    }
}

/// The result of the work for a page.
enum Done {
    View(View),
    Kept(u64),
    /// The moment is no longer kept.
    Forgotten,
}

/// Returns the routes. `permits` limits the profiles that are taken at the same time.
pub(super) fn router(permits: &Arc<Semaphore>) -> Router {
    let moments = Arc::new(Moments::default());
    let script = || async { ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], flame_page::SCRIPT) };
    let mut router = Router::new().route("/debug/runtime/flame.js", get(script));
    for endpoint in ENDPOINTS {
        let (permits, moments) = (Arc::clone(permits), Arc::clone(&moments));
        let handler =
            get(move |uri: Uri, headers: HeaderMap| answer(endpoint, uri, headers, permits, moments));
        router = router.route(&format!("{FOLDER}/{}", endpoint.name), handler);
    }
    router
}

async fn answer(
    endpoint: &'static Endpoint,
    uri: Uri,
    headers: HeaderMap,
    permits: Arc<Semaphore>,
    moments: Arc<Moments>,
) -> Response {
    let page = |status: StatusCode, content: Content<'_>| {
        let page = flame_page::page(endpoint, &moments.of(endpoint.name), content);
        (status, [(CONTENT_TYPE, HTML)], page).into_response()
    };
    let wish = match Wish::parse(uri.query().unwrap_or_default()) {
        Ok(wish) => wish,
        Err(problem) => return page(StatusCode::BAD_REQUEST, Content::Problem(&problem)),
    };
    if wish == Wish::Mark && is_from_elsewhere(&headers) {
        return page(StatusCode::FORBIDDEN, Content::Problem("another site may not choose a moment"));
    }
    if wish == Wish::Now && matches!(endpoint.take, Take::Cpu) {
        return page(StatusCode::OK, Content::Nothing);
    }
    let Ok(permit) = permits.try_acquire_owned() else {
        return page(StatusCode::TOO_MANY_REQUESTS, Content::Problem("too many profiles are being taken"));
    };
    let kept = Arc::clone(&moments);
    let work = move |client: &Client| {
        // Held until the thread ends, which can be later than the request.
        let _permit = permit;
        work(endpoint, wish, &kept, client)
    };
    match on_thread(work).await {
        Some(Ok(Done::View(view))) => page(StatusCode::OK, Content::View(&view, wish_text(wish))),
        Some(Ok(Done::Kept(id))) => {
            let location = format!("{FOLDER}/{}?since={id}", endpoint.name);
            (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response()
        }
        Some(Ok(Done::Forgotten)) => {
            page(StatusCode::NOT_FOUND, Content::Problem("this moment is no longer kept; choose another one"))
        }
        Some(Err(error)) => page(status(&error), Content::Problem(&error.to_string())),
        None => page(StatusCode::INTERNAL_SERVER_ERROR, Content::Problem("could not take the profile")),
    }
}

fn work(endpoint: &'static Endpoint, wish: Wish, moments: &Moments, client: &Client) -> Result<Done, Error> {
    let seconds = if let Wish::During(seconds) = wish { Some(seconds) } else { None };
    let earlier = match wish {
        Wish::Since(id) => match moments.get(endpoint.name, id) {
            Some(earlier) => Some(earlier),
            None => return Ok(Done::Forgotten),
        },
        _ => None,
    };
    let profile = endpoint.take(seconds, client)?;
    Ok(match (wish, earlier) {
        (Wish::Mark, _) => Done::Kept(moments.keep(endpoint.name, profile)),
        (_, Some(earlier)) => Done::View(View::new(&profile.delta(&earlier))),
        (_, None) => Done::View(View::new(&profile)),
    })
}

/// Returns true if a page of another site has sent the request. Browsers say so.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none")
}

fn wish_text(wish: Wish) -> Option<String> {
    match wish {
        Wish::During(time) => Some(format!("in {} seconds", time.as_secs())),
        Wish::Since(_) => Some("growth since the chosen moment".to_owned()),
        Wish::Now | Wish::Mark => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_one_wish_or_refused() {
        let wish = Wish::parse;
        assert_eq!(wish(""), Ok(Wish::Now));
        assert_eq!(wish("other=1"), Ok(Wish::Now));
        assert_eq!(wish("mark"), Ok(Wish::Mark));
        assert_eq!(wish("since=7"), Ok(Wish::Since(7)));
        assert_eq!(wish("seconds=10"), Ok(Wish::During(Duration::from_secs(10))));
        for wrong in
            ["since=", "since=-1", "since=99999999999999999999", "seconds=0", "seconds=301", "seconds"]
        {
            assert!(wish(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_pages_of_this_server_choose_moments() {
        let from = |site: &'static str| {
            is_from_elsewhere(
                &[("sec-fetch-site", site)]
                    .into_iter()
                    .map(|(name, site)| {
                        (
                            axum::http::HeaderName::from_static(name),
                            axum::http::HeaderValue::from_static(site),
                        )
                    })
                    .collect(),
            )
        };
        assert!(from("cross-site") && from("same-site"));
        assert!(!from("same-origin") && !from("none") && !is_from_elsewhere(&HeaderMap::new()));
    }
}
