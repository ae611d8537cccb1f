//! Sends random requests to the endpoints.

use std::net::{Ipv4Addr, Ipv6Addr};

use arbitrary::{Result, Unstructured};
use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_SECURITY_POLICY, COOKIE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use tower_service::Service;

use crate::runtime_metrics::RuntimeMetrics;
use crate::util::fuzz::{edited, edited_text, run};

const PATHS: [&[u8]; 16] = [
    b"/debug/vars",
    b"/debug/metrics.json",
    b"/debug/runtime",
    b"/debug/runtime/page.js",
    b"/debug/runtime/page.css",
    b"/debug/events",
    b"/debug/pprof/",
    b"/debug/pprof/cmdline",
    b"/debug/pprof/heap",
    b"/debug/pprof/symbol",
    b"/debug/runtime/flame/threads",
    b"/debug/runtime/flame.js",
    b"/debug/runtime/plots",
    b"/debug/%76ars",
    b"/debug//vars/../vars",
    b"http://evil.example/debug/vars",
];
const HOSTS: [&[u8]; 10] = [
    b"localhost",
    b"LOCALHOST.:6060",
    b"127.0.0.1:6060",
    b"[::1]:6060",
    b"[::ffff:127.0.0.1]",
    b"metrics.internal:443",
    b"evil.example",
    b"localhost@evil.example",
    b"10.0.0.8",
    b"0.0.0.0:80",
];
const VALUES: [&[u8]; 4] = [b"http://evil.example", b"cross-site", b"a=b; c=d", b"text/html, */*;q=0.8"];

/// A request whose answer takes no profile, which would take long.
fn request(u: &mut Unstructured<'_>) -> Result<Option<Request<Body>>> {
    let path = edited(u, &PATHS)?;
    let mut uri = path.split(|byte| *byte == b'?').next().unwrap_or_default().to_vec();
    // The profiles refuse this one.
    uri.extend(b"?seconds=301&");
    uri.extend(edited(u, &[b"debug=1&seconds=5", b"mark", b"since=7", b"0x1234+0x5678"])?);
    let Ok(uri) = Uri::try_from(uri) else { return Ok(None) };
    if uri.path().starts_with("/debug/runtime/flame/")
        && uri.query().is_some_and(|query| query.contains("mark"))
    {
        return Ok(None);
    }
    let method = u
        .choose(&[Method::GET, Method::GET, Method::GET, Method::POST, Method::HEAD, Method::OPTIONS])?
        .clone();
    let mut request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap_or_default();
    for _ in 0..*u.choose(&[1, 1, 1, 1, 0, 2])? {
        let host = HeaderValue::from_bytes(&edited(u, &HOSTS)?);
        host.into_iter().for_each(|host| _ = request.headers_mut().append(HOST, host));
    }
    for _ in 0..u.int_in_range(0..=3)? {
        let name = u.choose(&[ORIGIN, ACCEPT, COOKIE, HeaderName::from_static("sec-fetch-site")])?.clone();
        let value = HeaderValue::from_bytes(&edited(u, &VALUES)?);
        value.into_iter().for_each(|value| _ = request.headers_mut().append(name.clone(), value));
    }
    Ok(Some(request))
}

/// Returns true if the request names one host, and that is an address, `localhost` or the allowed name.
fn is_answered(request: &Request<Body>) -> bool {
    let hosts: Vec<_> = request.headers().get_all(HOST).iter().collect();
    let host = match &*hosts {
        [host] => host.to_str().unwrap_or_default(),
        [] => request.uri().authority().map_or("", |authority| authority.as_str()),
        _ => "",
    };
    let host = host.to_ascii_lowercase();
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => &host,
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let name = host.strip_suffix('.').unwrap_or(host);
    ["localhost", "metrics.internal"].contains(&name)
        || name.parse::<Ipv4Addr>().is_ok_and(|address| !address.is_unspecified())
        || inner
            .and_then(|inner| inner.parse::<Ipv6Addr>().ok())
            .is_some_and(|address| !address.to_canonical().is_unspecified())
}

#[test]
fn any_request_by_another_name_is_refused_and_every_answer_is_closed_to_other_sites() {
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("fuzz"));
    let mut router = super::builder(&metrics).allow_host("Metrics.internal").router();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    run(3_000, 4 << 20, |u| {
        let Some(request) = request(u)? else { return Ok(false) };
        let (is_answered, method, uri) =
            (is_answered(&request), request.method().clone(), request.uri().clone());
        let hosts = format!("{:?}", request.headers().get_all(HOST));
        let answer = runtime.block_on(router.call(request)).unwrap();
        let status = answer.status();
        assert!(
            is_answered || !status.is_success() && !status.is_redirection(),
            "{status} for {uri} of {hosts}"
        );
        assert!(
            !status.is_success() || method == Method::GET || uri.path() == "/debug/pprof/symbol",
            "{method} {uri}"
        );
        let has = |name: HeaderName| answer.headers().contains_key(name);
        assert!(has(CONTENT_SECURITY_POLICY) && has(X_CONTENT_TYPE_OPTIONS), "{status} for {uri}");
        assert!(!answer.headers().contains_key("access-control-allow-origin"));
        assert!(!status.is_server_error(), "{status} for {uri}");
        Ok(status == StatusCode::OK)
    });
}

#[test]
#[cfg(feature = "profile")]
fn any_query_for_a_profile_has_at_most_300_seconds() {
    run(4_000, 1 << 19, |u| {
        let query = edited_text(
            u,
            &["seconds=30", "debug=1&seconds=300", "seconds=5&seconds=301", "mark&seconds=1", ""],
        )?;
        let limit = super::pprof::time_limit(
            &Uri::try_from(format!("/debug/pprof/profile?{query}")).unwrap_or_default(),
        );
        if let Some(limit) = limit {
            assert!((121..=420).contains(&limit.as_secs()), "{limit:?} for {query}");
        }
        Ok(limit.is_some())
    });
}
