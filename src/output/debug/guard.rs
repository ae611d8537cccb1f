//! Which requests are answered, and what every answer says.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, Method, StatusCode, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// On every answer: it is nobody else's, and the page loads nothing from elsewhere.
const HEADERS: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

pub(super) async fn guard(State(hosts): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    let response = if !is_allowed(&request, &hosts) {
        (StatusCode::FORBIDDEN, "This host is not among those that are answered.\n").into_response()
    } else if request.method() != Method::GET {
        (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET")]).into_response()
    } else {
        next.run(request).await
    };
    (HEADERS, response).into_response()
}

/// Whether the request is for one of our names. One that others may give to our address is not: see DNS rebinding.
fn is_allowed(request: &Request, hosts: &[String]) -> bool {
    let mut named = request.headers().get_all(HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        // HTTP/2 has it in the URI.
        (None, None) => request.uri().authority().cloned(),
        (_, Some(_)) => None,
    };
    host.is_some_and(|host| is_named(host.host(), hosts) && !host.as_str().contains('@'))
}

fn is_named(host: &str, hosts: &[String]) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    is_loopback(host) || hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
}

fn is_loopback(host: &str) -> bool {
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match in_brackets {
        Some(address) => address.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback()),
        None => {
            host.eq_ignore_ascii_case("localhost")
                || host.parse().is_ok_and(|address: IpAddr| address.is_ipv4() && address.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn allowed(host: &str) -> bool {
        let request = Request::builder().uri("/").header(HOST, host).body(Body::empty());
        request.is_ok_and(|request| is_allowed(&request, &["Metrics.internal".into(), "10.0.0.7".into()]))
    }

    #[test]
    fn loopback_and_what_was_allowed_is_answered() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "localhost.",
            "127.0.0.1",
            "127.8.9.10:6060",
            "[::1]",
            "[::1]:6060",
            "metrics.INTERNAL",
            "metrics.internal:443",
            "10.0.0.7:1",
        ] {
            assert!(allowed(host), "{host}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "evil.example:localhost",
            "127.0.0.1.evil.example",
            "10.0.0.8",
            "0.0.0.0",
            "[::]",
            "[::2]:6060",
            "::1",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost/evil",
            "local host",
            "127.0.0.1, evil.example",
            "2130706433",
            "0x7f.1",
        ] {
            assert!(!allowed(host), "{host}");
        }
    }

    #[test]
    fn one_host_and_only_one() {
        let without = Request::builder().uri("/debug/vars").body(Body::empty()).unwrap();
        assert!(!is_allowed(&without, &[]));
        let in_uri = Request::builder().uri("http://localhost/debug/vars").body(Body::empty()).unwrap();
        assert!(is_allowed(&in_uri, &[]));
        let two = Request::builder().header(HOST, "localhost").header(HOST, "localhost");
        assert!(!is_allowed(&two.body(Body::empty()).unwrap(), &[]));
    }
}
