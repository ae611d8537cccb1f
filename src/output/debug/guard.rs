//! Decides which requests are answered, and adds the headers of every answer.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, Method, StatusCode, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The hosts whose requests are answered, besides `localhost` and loopback addresses.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// Names and addresses without a port.
    pub(super) allowed: Vec<String>,
    /// True if any other IP address is answered too.
    pub(super) any_address: bool,
}

/// The path of the names of addresses.
pub(super) const SYMBOL: &str = "/debug/pprof/symbol";

/// The headers of every answer: other origins cannot read it, and the page loads nothing from elsewhere.
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

pub(super) async fn guard(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    let response = if !is_allowed(&request, &hosts) {
        (StatusCode::FORBIDDEN, "This host is not allowed. See `allow_host`.\n").into_response()
    } else if request.method() != Method::GET && !is_look_up(&request) {
        (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET")]).into_response()
    } else {
        next.run(request).await
    };
    (HEADERS, response).into_response()
}

/// Returns true for the one request that has a body: `go tool pprof` posts the addresses whose names it wants.
fn is_look_up(request: &Request) -> bool {
    cfg!(feature = "profile") && request.method() == Method::POST && request.uri().path() == SYMBOL
}

/// Returns true if the request names an allowed host. A web page can give its own name the address of this machine (DNS
/// rebinding), so a name must be allowed; it cannot do that with an address.
fn is_allowed(request: &Request, hosts: &Hosts) -> bool {
    let mut named = request.headers().get_all(HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        // HTTP/2 has the host in the URI.
        (None, None) => request.uri().authority().cloned(),
        (_, Some(_)) => None,
    };
    host.is_some_and(|host| is_allowed_host(host.host(), hosts) && is_plain(&host))
}

/// Returns true if nothing but a port follows the host, and nothing precedes it.
fn is_plain(authority: &Authority) -> bool {
    let rest = authority.as_str().strip_prefix(authority.host());
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

fn is_allowed_host(host: &str, hosts: &Hosts) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.eq_ignore_ascii_case("localhost")
        || hosts.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    {
        return true;
    }
    // Some systems route the unspecified address to this machine.
    address(host).is_some_and(|ip| ip.is_loopback() || hosts.any_address && !ip.is_unspecified())
}

/// Returns the address that a host is written as. An IPv4 address within IPv6 is that IPv4 address.
fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => Some(address.parse::<Ipv6Addr>().ok()?.to_canonical()),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn is_answered(host: &str, any_address: bool) -> bool {
        let hosts = Hosts { allowed: vec!["Metrics.internal".into(), "10.0.0.7".into()], any_address };
        let request = Request::builder().uri("/").header(HOST, host).body(Body::empty());
        request.is_ok_and(|request| is_allowed(&request, &hosts))
    }

    fn allowed(host: &str) -> bool {
        let [strict, open] = [false, true].map(|any_address| is_answered(host, any_address));
        assert!(open || !strict, "{host}: a setting that allows more refuses it");
        strict
    }

    #[test]
    fn loopback_and_allowed_hosts_are_answered() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "localhost.",
            "127.0.0.1",
            "127.8.9.10:6060",
            "[::1]",
            "[::1]:6060",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]:6060",
            "metrics.INTERNAL",
            "metrics.internal:443",
            "10.0.0.7:1",
        ] {
            assert!(allowed(host), "{host}");
        }
    }

    #[test]
    fn other_hosts_are_refused() {
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
            "localhost:http",
            "localhost:+1",
            "[::1]:0x10",
            "0x7f.1",
        ] {
            assert!(!allowed(host), "{host}");
        }
    }

    #[test]
    fn any_address_is_answered_where_that_is_set_but_no_other_name() {
        for host in ["10.0.0.8", "192.168.1.2:6060", "[fd00::1]:6060", "[::ffff:10.0.0.8]", "[::2]"] {
            assert!(!is_answered(host, false) && is_answered(host, true), "{host}");
        }
        for host in
            ["0.0.0.0", "[::]:80", "evil.example", "10.0.0.8.evil.example", "167772168", "::1", "[10.0.0.8]"]
        {
            assert!(!is_answered(host, true), "{host}");
        }
    }

    #[test]
    fn a_request_names_exactly_one_host() {
        let without = Request::builder().uri("/debug/vars").body(Body::empty()).unwrap();
        assert!(!is_allowed(&without, &Hosts::default()));
        let in_uri = Request::builder().uri("http://localhost/debug/vars").body(Body::empty()).unwrap();
        assert!(is_allowed(&in_uri, &Hosts::default()));
        let two = Request::builder().header(HOST, "localhost").header(HOST, "localhost");
        assert!(!is_allowed(&two.body(Body::empty()).unwrap(), &Hosts::default()));
    }
}
