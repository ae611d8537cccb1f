//! Serves profiles: under `/debug/pprof/` with the paths and parameters of Go's `net/http/pprof`, and as flame graphs under
//! `/debug/runtime/flame/`.

mod endpoint;
mod flame;
mod flame_page;
mod moments;
mod request;
mod routes;
mod work;

pub(super) use request::time_limit;
pub(super) use routes::router;
