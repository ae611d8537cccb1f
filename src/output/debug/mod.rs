//! Shows the process over HTTP, without any backend. Feature `debug`.
//!
//! | path | answer |
//! |---|---|
//! | `/debug/runtime` | a page with live plots of the last ten minutes |
//! | `/debug/metrics.json` | the snapshot |
//! | `/debug/events` | the snapshot as server-sent events, one a second |
//! | `/debug/vars` | the snapshot as Go's `expvar` serves it, with `memstats` |
//! | `/debug/pprof/` | profiles for `go tool pprof`; needs the feature `profile` |
//!
//! [`serve`] answers on its own thread with its own runtime, so it answers even while every runtime of the application is
//! blocked. [`router`] is for an application that already has a server. A thread takes one snapshot a second, and all
//! requests of that second are answered from it: many requests do not disturb the numbers.
//!
//! # Who can read it
//! There is no authentication. The endpoints answer only GET requests, and only if the request's host is
//!
//! * `localhost` or a loopback address,
//! * a host that was [allowed](Builder::allow_host),
//! * any other IP address, except on a server that is bound to a loopback address.
//!
//! Other names are refused because any web page that is open on a machine could give its own name the address of this
//! server (DNS rebinding) and read the answers. The environment is never shown, and the command line only
//! [on request](Builder::command_line).
//!
//! # Profiles
//! With the feature `profile`, `/debug/pprof/` lists the profiles and serves them as Go's `net/http/pprof` does: `seconds=N`,
//! from 1 to 300, asks for the change in that time, `debug=1` for text. A request ends when its client goes. At most four
//! profiles are taken at the same time, one of them of the CPU; further requests get the status 429 or 409.
//!
//! # `memstats`
//! `/debug/vars` has every field of Go's `runtime.MemStats`, since consumers of `expvar` fail without. `Alloc`,
//! `TotalAlloc`, `Sys`, `Mallocs`, `Frees`, `PauseTotalNs` and `NumGC` are those of [`Monitor::memstats`]. Besides:
//!
//! | key | value |
//! |---|---|
//! | `HeapAlloc`, `HeapSys`, `HeapObjects` | `Alloc`, `Sys`, `rust.memory.allocation.count` |
//! | `HeapInuse` | `jemalloc.memory.active`, or else `Alloc` |
//! | `HeapIdle` | `HeapSys` less `HeapInuse` |
//! | `HeapReleased` | `jemalloc.memory.retained` |
//! | `PauseNs`, `PauseEnd`, `LastGC` | the latest 256 stalls of Tokio workers, in Go's order, and the end of the latest one |
//!
//! All other fields have no counterpart in Rust and are 0 or false, as are those whose source is missing.
//!
//! ```no_run
//! # let meter = opentelemetry::global::meter("service");
//! let metrics = opentelemetry_instrumentation_runtime::init_runtime_metrics(&meter);
//! let server = opentelemetry_instrumentation_runtime::debug::serve("127.0.0.1:6060", &metrics)?;
//! println!("http://{}/debug/runtime", server.local_addr());
//! # Ok::<(), opentelemetry_instrumentation_runtime::debug::Error>(())
//! ```
//!
//! [`Monitor::memstats`]: crate::Monitor::memstats

mod change;
mod guard;
mod history;
mod line;
mod page;
mod plot;
mod plots;
#[cfg(feature = "profile")]
mod pprof;
mod routes;
mod sampler;
mod server;
mod stalls;
mod vars;

use std::net::ToSocketAddrs;

use crate::runtime_metrics::RuntimeMetrics;
use guard::Hosts;

pub use server::{Error, Server};

/// Returns the endpoints, for an application that already has a server: `app.merge(debug::router(&metrics))`.
///
/// They are as reachable as that server, apart from the check of the request's host, and do not answer while its runtime
/// is blocked. The snapshots go on meanwhile, and end when the router is dropped.
pub fn router(metrics: &RuntimeMetrics) -> axum::Router {
    builder(metrics).router()
}

/// Serves the endpoints on a loopback address. See [`Builder::serve`].
///
/// # Errors
///
/// Returns an error if other machines can reach the address, if it cannot be bound, or if no thread can be started.
pub fn serve(addr: impl ToSocketAddrs, metrics: &RuntimeMetrics) -> Result<Server, Error> {
    builder(metrics).serve(addr)
}

/// Returns a builder, for other settings than the defaults.
pub fn builder(metrics: &RuntimeMetrics) -> Builder {
    Builder { metrics: metrics.clone(), hosts: Vec::new(), command_line: false, allow_remote: false }
}

/// Configures the debug endpoints. Made by [`builder`].
#[derive(Debug)]
#[must_use = "nothing is served before `router` or `serve`"]
pub struct Builder {
    metrics: RuntimeMetrics,
    hosts: Vec<String>,
    command_line: bool,
    allow_remote: bool,
}

impl Builder {
    /// Answers requests for this host too: a name or an address, without a port.
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Shows the command line as `cmdline` in `/debug/vars`, as Go does. Off by default, because command lines can hold
    /// secrets.
    pub fn command_line(mut self, on: bool) -> Self {
        self.command_line = on;
        self
    }

    /// Lets [`serve`](Self::serve) bind to an address that other machines can reach. There is no authentication. Off by
    /// default.
    pub fn allow_remote(mut self, on: bool) -> Self {
        self.allow_remote = on;
        self
    }

    /// Returns the endpoints, for an application that already has a server. See [`router`].
    pub fn router(self) -> axum::Router {
        self.router_for(true)
    }

    /// Serves the endpoints on its own thread with its own runtime, until [`Server::stop`]. Port 0 takes a free port.
    ///
    /// # Errors
    ///
    /// Returns an error if other machines can reach the address and that was not [allowed](Self::allow_remote), if it
    /// cannot be bound, or if no thread can be started.
    pub fn serve(self, addr: impl ToSocketAddrs) -> Result<Server, Error> {
        let listener = server::bind(addr, self.allow_remote)?;
        let any_address = !server::is_loopback(&listener.local_addr()?);
        server::run(listener, self.router_for(any_address))
    }

    fn router_for(self, any_address: bool) -> axum::Router {
        let hosts = Hosts { allowed: self.hosts, any_address };
        routes::router(sampler::start(&self.metrics, self.command_line), hosts, self.command_line)
    }
}
