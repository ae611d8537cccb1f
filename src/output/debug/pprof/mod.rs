//! Serves profiles under `/debug/pprof/`, with the paths and parameters of Go's `net/http/pprof`.

mod request;
mod routes;
mod work;

pub(super) use request::time_limit;
pub(super) use routes::router;
