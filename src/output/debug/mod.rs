//! A look at the process over HTTP, without any backend. Feature `debug`.
//!
//! | path | what |
//! |---|---|
//! | `/debug/runtime` | a page with live plots of the last ten minutes |
//! | `/debug/metrics.json` | the snapshot |
//! | `/debug/events` | the snapshot as server-sent events, one a second |
//! | `/debug/vars` | the snapshot as Go's `expvar` has it, with `memstats` under Go's names |
//!
//! [`serve`] answers on a thread and a runtime of its own, hence also while the application's runtimes are blocked;
//! [`router`] is for an application that has a server already. Both take a snapshot each second, on a thread, and
//! keep what the plots need of the last ten minutes. All requests of a second are answered from the same snapshot, so
//! that no number of them disturbs what is measured.
//!
//! The endpoints only answer GET, and only to requests for `localhost` or a loopback address, or for a host that
//! was [allowed](Builder::allow_host): otherwise any page that someone on this machine visits could read them by
//! giving its own name this machine's address. The environment is never shown, the command line
//! [on request](Builder::command_line).
//!
//! ```no_run
//! # let meter = opentelemetry::global::meter("service");
//! let metrics = opentelemetry_instrumentation_runtime::init_runtime_metrics(&meter);
//! let server = opentelemetry_instrumentation_runtime::debug::serve("127.0.0.1:6060", &metrics)?;
//! println!("http://{}/debug/runtime", server.local_addr());
//! # Ok::<(), opentelemetry_instrumentation_runtime::debug::Error>(())
//! ```

mod change;
mod guard;
mod history;
mod page;
mod plot;
mod routes;
mod sampler;
mod server;
mod vars;

use std::net::ToSocketAddrs;

use crate::runtime_metrics::RuntimeMetrics;

pub use server::{Error, Server};

/// The endpoints, for a server that is there already: `app.merge(debug::router(&metrics))`.
///
/// They then are as reachable as that server is, apart from the check of the request's host, and stall when its
/// runtime does; the plots have no gap all the same. The snapshots end when the router is dropped.
pub fn router(metrics: &RuntimeMetrics) -> axum::Router {
    builder(metrics).router()
}

/// Serves the endpoints on a loopback address. See [`Builder::serve`].
pub fn serve(addr: impl ToSocketAddrs, metrics: &RuntimeMetrics) -> Result<Server, Error> {
    builder(metrics).serve(addr)
}

/// For settings other than the default ones.
pub fn builder(metrics: &RuntimeMetrics) -> Builder {
    Builder { metrics: metrics.clone(), hosts: Vec::new(), command_line: false, beyond_loopback: false }
}

/// What the endpoints show and to whom. Made by [`builder`].
#[derive(Debug)]
#[must_use = "nothing is served before `router` or `serve`"]
pub struct Builder {
    metrics: RuntimeMetrics,
    hosts: Vec<String>,
    command_line: bool,
    beyond_loopback: bool,
}

impl Builder {
    /// Answers requests for this host too: a name or an address, without a port.
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Shows the command line under `cmdline` in `/debug/vars`, as Go does. Off by default, because secrets are
    /// passed there.
    pub fn command_line(mut self, on: bool) -> Self {
        self.command_line = on;
        self
    }

    /// Lets [`serve`](Self::serve) bind to an address that other machines can reach. There is no authentication.
    pub fn beyond_loopback(mut self, on: bool) -> Self {
        self.beyond_loopback = on;
        self
    }

    /// The endpoints, for a server that is there already. See [`router`].
    pub fn router(self) -> axum::Router {
        routes::router(sampler::start(&self.metrics, self.command_line), self.hosts)
    }

    /// Serves the endpoints on a thread and a runtime of its own, until [`Server::stop`]. Port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// When the address is no loopback address, or cannot be bound to.
    pub fn serve(self, addr: impl ToSocketAddrs) -> Result<Server, Error> {
        let listener = server::bind(addr, self.beyond_loopback)?;
        server::run(listener, self.router())
    }
}
