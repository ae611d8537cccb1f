//! The proxy that a connection goes through.

use std::net::IpAddr;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

use crate::otlp::config::env::{Env, QUOTED, Variable};
use crate::otlp::config::secrets::Secrets;
use crate::otlp::config::shown::{is_no_host, secrets_of_url, shown_url};

/// A proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) url: Uri,
    /// The header for a user and a password in its URL.
    pub(crate) authorization: Option<HeaderValue>,
    /// The name in messages, without secrets.
    shown: String,
    /// The variable, for messages.
    pub(crate) variable: &'static str,
}

impl Proxy {
    /// The proxy for a URL by `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`. There is none for this machine itself.
    pub(crate) fn new(to: &Uri, env: &Env<'_>, secrets: &mut Secrets) -> Option<Self> {
        if to.host().is_none_or(is_loopback) {
            return None;
        }
        let is_https = to.scheme_str() == Some("https");
        let (variable, names) = match is_https {
            true => ("HTTPS_PROXY", ["HTTPS_PROXY", "https_proxy"]),
            false => ("HTTP_PROXY", ["HTTP_PROXY", "http_proxy"]),
        };
        // A web server hands the header `Proxy` of any client to a CGI program in this variable.
        if !is_https && read(env, &["REQUEST_METHOD"]).is_some() {
            return None;
        }
        let proxy = read(env, &names)?;
        let exceptions = read(env, &["NO_PROXY", "no_proxy"]).unwrap_or_default();
        let exceptions = exceptions_for(to, &exceptions);
        let shown = shown_url(&proxy);
        secrets_of_url(&proxy, secrets);
        let usable = Matcher::builder().all(proxy.clone()).build().intercept(to);
        let is_http = |scheme: &str| scheme.starts_with("http") && !is_no_host(&proxy);
        let Some(found) = usable.filter(|found| found.uri().scheme_str().is_some_and(is_http)) else {
            let problem = match Variable::new(variable, &proxy).is_quoted() {
                true => QUOTED,
                false => "it must be a URL that begins with http:// or https://",
            };
            env.warn(format!("{variable}={shown}: {problem}"));
            return None;
        };
        if found.uri().scheme_str() == Some("https") && !cfg!(feature = "otlp-tls") {
            env.warn(format!("{variable}={}: https needs the Cargo feature `otlp-tls`", shown));
            return None;
        }
        // Checked last, so that a proxy that is not used is not warned of twice.
        Matcher::builder().all(proxy).no(exceptions).build().intercept(to)?;
        let authorization = found.basic_auth().cloned();
        if let Some(Ok(value)) = authorization.as_ref().map(HeaderValue::to_str) {
            secrets.add(value);
        }
        Some(Proxy { url: found.uri().clone(), shown, authorization, variable })
    }

    #[cfg(feature = "otlp-tls")]
    pub(crate) fn is_https(&self) -> bool {
        self.url.scheme_str() == Some("https")
    }

    /// Returns the name in messages.
    pub(crate) fn name(&self) -> String {
        format!("the proxy {} of {}", self.shown, self.variable)
    }
}

fn read(env: &Env<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| env.parse(name, |value| Ok(value.to_owned())))
}

/// The entries of `NO_PROXY` that hold for the port of a URL, as the matcher knows them: without ports, without `*` before
/// a domain, and with addresses out of their brackets.
fn exceptions_for(to: &Uri, list: &str) -> String {
    let port = port_of(to);
    let entries = list.split([',', ';', ' ', '\t']).filter(|entry| !entry.is_empty()).filter_map(|entry| {
        let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest).trim_end_matches('/');
        let (host, wanted) = match entry.rsplit_once(':') {
            // Colons within an address are no beginning of a port.
            Some((host, wanted)) if !host.contains(':') || host.ends_with(']') => (host, Some(wanted)),
            _ => (entry, None),
        };
        if wanted.is_some_and(|wanted| wanted != "*" && wanted.parse() != Ok(port)) {
            return None;
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let host = host.strip_prefix('[').map_or(host, |inner| inner.trim_end_matches(']'));
        Some(if host == "." { host } else { host.trim_end_matches('.') }.to_owned())
    });
    entries.collect::<Vec<_>>().join(",")
}

/// The port that a URL names or its scheme means.
pub(crate) fn port_of(to: &Uri) -> u16 {
    to.port_u16().unwrap_or(if to.scheme_str() == Some("https") { 443 } else { 80 })
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches([']', '.']);
    let name = host.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::config::env::{warnings, with};

    fn proxy(to: &'static str, set: &[(&str, &str)]) -> (Option<Proxy>, Vec<String>) {
        let url = Uri::from_static(to);
        with(set, |env| (Proxy::new(&url, env, &mut Secrets::default()), warnings(env)))
    }

    fn name(to: &'static str, set: &[(&str, &str)]) -> Option<String> {
        proxy(to, set).0.map(|proxy| proxy.name())
    }

    #[test]
    fn each_scheme_has_its_variable_and_there_are_exceptions() {
        let http = ("HTTP_PROXY", "http://p:1");
        let https = ("https_proxy", "http://user:s3cret@q:2");
        assert_eq!(name("http://h:4318/", &[http, https]).unwrap(), "the proxy http://p:1 of HTTP_PROXY");
        assert_eq!(
            name("https://h:4318/", &[http, https]).unwrap(),
            "the proxy http://[hidden]@q:2 of HTTPS_PROXY"
        );
        assert_eq!(name("https://h:4318/", &[http]), None);
        assert_eq!(name("http://h:4318/", &[("HTTP_PROXY", "p:1")]).unwrap(), "the proxy p:1 of HTTP_PROXY");
        for exceptions in ["h", "a, h", "*"] {
            assert_eq!(name("http://h:4318/", &[http, ("NO_PROXY", exceptions)]), None, "{exceptions}");
        }
        assert_eq!(name("http://x.h.org:4318/", &[http, ("no_proxy", ".h.org")]), None);
        assert!(name("http://h:4318/", &[http, ("NO_PROXY", "other")]).is_some());
        assert_eq!(name("http://h:4318/", &[http, ("REQUEST_METHOD", "GET")]), None);
    }

    #[test]
    fn exceptions_have_many_forms() {
        let is_used = |to: &'static str, exceptions: &str| {
            let set = [("HTTP_PROXY", "http://p:1"), ("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", exceptions)];
            let (proxy, warnings) = proxy(to, &set);
            assert_eq!(warnings, [""; 0]);
            proxy.is_some()
        };
        for (to, exceptions) in [
            ("http://h.org:4318/", "*"),
            ("http://h.org:4318/", "h.org"),
            ("http://h.org:4318/", "H.ORG"),
            ("http://h.org:4318/", ".h.org"),
            ("http://a.h.org:4318/", "h.org"),
            ("http://a.h.org:4318/", ".h.org"),
            ("http://a.h.org:4318/", "*.h.org"),
            ("http://h.org:4318/", "h.org."),
            ("http://h.org:4318/", "h.org:4318"),
            ("http://h.org:4318/", "h.org:*"),
            ("http://a.h.org:4318/", ".h.org:4318"),
            ("http://h.org/", "h.org:80"),
            ("https://h.org/", "h.org:443"),
            ("http://h.org:4318/", "http://h.org/"),
            ("http://h.org:4318/", "x, h.org ,y"),
            ("http://h.org:4318/", "x h.org y"),
            ("http://h.org:4318/", ",,h.org,"),
            ("http://10.1.2.3:4318/", "10.0.0.0/8"),
            ("http://10.1.2.3:4318/", "10.1.2.3"),
            ("http://10.1.2.3:4318/", "10.1.2.3:4318"),
            ("http://[fd00::1]:4318/", "fd00::/8"),
            ("http://[fd00::1]:4318/", "fd00::1"),
            ("http://[fd00::1]:4318/", "[fd00::1]"),
            ("http://[fd00::1]:4318/", "[fd00::1]:4318"),
        ] {
            assert!(!is_used(to, exceptions), "{to} is an exception by {exceptions}");
        }
        for (to, exceptions) in [
            ("http://h.org:4318/", "h.org:4317"),
            ("http://h.org:4318/", "other.org"),
            ("http://noth.org:4318/", "h.org"),
            ("http://noth.org:4318/", "*h.org"),
            ("http://h.org:4318/", "a.h.org"),
            ("http://11.1.2.3:4318/", "10.0.0.0/8"),
            ("http://10.1.2.3:4318/", "10.1.2.3:4317"),
            ("http://[fd00::1]:4318/", "[fd00::1]:4317"),
            ("http://[fd00::1]:4318/", "fe80::/10"),
        ] {
            assert!(is_used(to, exceptions), "{to} is no exception by {exceptions}");
        }
    }

    #[test]
    fn no_password_in_the_url_of_a_proxy_is_shown() {
        for (url, shown) in [
            ("http://user:s3cret@p:1", "http://[hidden]@p:1"),
            ("http://user:s3%63ret%21@p:1", "http://[hidden]@p:1"),
            ("http://s3cret@p:1", "http://[hidden]@p:1"),
            ("https://user:s3cret@p:1/", "https://[hidden]@p:1/"),
            ("user:s3cret@p:1", "[hidden]@p:1"),
        ] {
            let mut secrets = Secrets::default();
            let to = Uri::from_static("http://h:4318/");
            let proxy = with(&[("HTTP_PROXY", url)], |env| {
                let proxy = Proxy::new(&to, env, &mut secrets);
                (proxy, warnings(env))
            });
            let (Some(proxy), _) = proxy else {
                assert!(!cfg!(feature = "otlp-tls") && url.starts_with("https"), "{url}");
                continue;
            };
            assert_eq!(proxy.name(), format!("the proxy {shown} of HTTP_PROXY"));
            let authorization = proxy.authorization.unwrap();
            let echo = format!("no user s3cret by {}", authorization.to_str().unwrap());
            let shown = secrets.excerpt(&echo);
            let encoded = authorization.to_str().unwrap().split(' ').nth(1).unwrap();
            assert!(!shown.contains("s3cret") && !shown.contains(encoded), "{url}: {shown}");
        }
    }

    #[test]
    fn this_machine_is_reached_directly() {
        for to in [
            "http://localhost:1/",
            "http://a.localhost/",
            "http://127.0.0.9/",
            "http://[::1]:4318/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            assert_eq!(name(to, &[("HTTP_PROXY", "http://p:1")]), None, "{to}");
        }
    }

    #[test]
    fn a_malformed_proxy_is_ignored_with_a_warning_that_hides_the_password() {
        for value in [
            "socks5://user:s3cret@p:1",
            "ftp://user:s3cret@p",
            "http://",
            "'http://user:s3cret@p:1'",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.s3cret-signature-of-forty",
        ] {
            let (proxy, warnings) = proxy("http://h/", &[("HTTP_PROXY", value)]);
            assert!(proxy.is_none());
            assert_eq!(warnings.len(), 1, "{value}");
            assert!(
                warnings.iter().all(|line| line.starts_with("HTTP_PROXY=") && !line.contains("s3cret")),
                "{warnings:?}"
            );
        }
    }
}
