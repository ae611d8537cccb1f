//! Watches runtimes from one thread of the process: how late their tasks run, and which workers make no progress.
//!
//! On each watched runtime lives a probe, a task that only notes when and where it runs. The watcher thread wakes it
//! from outside, so that no timer of the runtime is involved: at each tick, or less often while nothing happens (`rest`).
//! It observes the workers at each tick. When the runtime shuts down it drops its tasks; the destructor of the probe takes
//! the runtime off the list, with its handle and all that the handle keeps open.
//!
//! `stall` decides which workers count as stalled, from observations alone (`observe`, `others`). `thread` reads the threads.

mod clock;
mod observe;
mod others;
mod probe;
mod pulse;
mod registry;
mod rest;
mod stall;
mod thread;
mod watched;

pub(crate) use registry::{ShutdownListener, Subscription};
pub(crate) use stall::Cause;
pub(crate) use watched::{PresentStall, Watched};
