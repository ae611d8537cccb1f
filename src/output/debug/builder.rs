//! The settings of the endpoints, before they are served.

use std::net::ToSocketAddrs;

use super::guard::Hosts;
use super::server::{Error, Server};
use super::{routes, sampler, server};
use crate::runtime_metrics::RuntimeMetrics;

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
