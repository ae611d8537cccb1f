//! Shows the process over HTTP, without any backend. Feature `debug`.
//!
//! | path | answer |
//! |---|---|
//! | `/debug/runtime` | a page with live plots of the last ten minutes |
//! | `/debug/metrics.json` | the snapshot |
//! | `/debug/events` | the snapshot as server-sent events, one a second |
//! | `/debug/vars` | the snapshot as Go's `expvar` serves it, with `memstats` |
//! | `/debug/pprof/` | profiles for `go tool pprof`; needs the feature `profile` |
//! | `/debug/runtime/flame/heap` | memory in use as a flame graph; also `allocs`, `stalls`, `tasks`, `threads`, `profile` (CPU); needs the feature `profile` |
//!
//! [`serve`] answers on its own thread with its own runtime, so it answers even while every runtime of the application is
//! blocked. [`router`] is for an application that already has a server. A thread takes one snapshot a second, and all
//! requests of that second are answered from it: many requests do not disturb the numbers.
//!
//! # Who can read it
//! There is no authentication. The endpoints answer only GET requests, apart from the names of addresses that `go tool pprof`
//! posts to `/debug/pprof/symbol`, and only if the request's host is
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
//! The page links each plot to the flame graph of the code behind it. A flame graph can be zoomed and searched. *Growth from
//! now on* keeps the profile of this moment, and shows later what has been added; the latest four such moments are kept.
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

mod builder;
mod change;
#[cfg(test)]
mod fuzz;
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

pub use builder::{Builder, builder, router, serve};
pub use server::{Error, Server};
