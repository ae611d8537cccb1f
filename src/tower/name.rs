//! Finds the name of a request.

use std::borrow::Cow;

use http::{Method, Request};

use crate::count::task::{self, NameId};

/// Names requests. Implemented by [`Route`], [`Grpc`] and [`By`].
pub trait NameRequest<B>: sealed::Sealed {
    /// Returns the name of a request.
    #[doc(hidden)]
    fn name(&self, request: &Request<B>) -> RequestName;
}

/// The name of a request.
#[derive(Debug)]
#[doc(hidden)]
pub struct RequestName {
    pub(crate) name: NameId,
    /// A method that becomes a name if the service implements it.
    pub(crate) candidate: Option<Box<str>>,
}

impl From<NameId> for RequestName {
    fn from(name: NameId) -> Self {
        RequestName { name, candidate: None }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::tower::name::Route {}
    impl Sealed for crate::tower::name::Grpc {}
    impl<F> Sealed for crate::tower::name::By<F> {}
}

/// Names a request by its method and its route, such as `GET /order/{id}`: see
/// [`TaskNameLayer::new`](super::TaskNameLayer::new).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Route;

impl<B> NameRequest<B> for Route {
    fn name(&self, request: &Request<B>) -> RequestName {
        let method = known_method(request.method());
        let Some(route) = matched_route(request) else { return task::name_of_text(method.into()).into() };
        task::name_of_two(method, route).into()
    }
}

/// Returns the method, or `HTTP` if it is none of the known ones: a client may send any word.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::PATCH => "PATCH",
        Method::TRACE => "TRACE",
        _ => "HTTP",
    }
}

#[cfg(feature = "axum")]
fn matched_route<B>(request: &Request<B>) -> Option<&str> {
    request.extensions().get::<axum::extract::MatchedPath>().map(|path| path.as_str())
}

#[cfg(not(feature = "axum"))]
fn matched_route<B>(_: &Request<B>) -> Option<&str> {
    None
}

/// Names a request by its gRPC service and method, such as `shop.Orders/Get`: see
/// [`TaskNameLayer::grpc`](super::TaskNameLayer::grpc).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Grpc;

impl<B> NameRequest<B> for Grpc {
    fn name(&self, request: &Request<B>) -> RequestName {
        let Some(method) = grpc_method(request.uri().path()) else { return NameId::OTHER.into() };
        match task::known_name(method) {
            Some(name) => name.into(),
            None => RequestName { name: NameId::OTHER, candidate: Some(method.into()) },
        }
    }
}

/// Returns `service/method` of a path that has this form.
fn grpc_method(path: &str) -> Option<&str> {
    let name = path.strip_prefix('/')?;
    let (service, method) = name.split_once('/')?;
    (!service.is_empty() && !method.is_empty() && !method.contains('/')).then_some(name)
}

/// Names a request by a closure: see [`TaskNameLayer::by`](super::TaskNameLayer::by).
#[derive(Clone, Copy)]
pub struct By<F>(pub(crate) F);

impl<F> std::fmt::Debug for By<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("By")
    }
}

impl<B, F, S> NameRequest<B> for By<F>
where
    F: Fn(&Request<B>) -> S,
    S: Into<Cow<'static, str>>,
{
    fn name(&self, request: &Request<B>) -> RequestName {
        task::name_of_text((self.0)(request).into()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_path_has_a_service_and_a_method() {
        assert_eq!(grpc_method("/shop.Orders/Get"), Some("shop.Orders/Get"));
        for path in ["", "/", "/shop.Orders", "/shop.Orders/", "//Get", "/a/b/c", "shop.Orders/Get"] {
            assert_eq!(grpc_method(path), None, "{path}");
        }
    }

    #[test]
    fn an_unknown_method_is_no_name() {
        let method = |name: &[u8]| known_method(&Method::from_bytes(name).unwrap());
        assert_eq!(method(b"PATCH"), "PATCH");
        assert_eq!(method(b"BREW"), "HTTP");
    }
}
