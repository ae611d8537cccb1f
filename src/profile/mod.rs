//! Profiles: sampled stacks that say where memory is held, where time goes and where threads are.
//!
//! A [`Profile`] is a list of [`Sample`]s, each a stack with values and labels. [`Profile::to_pprof`] writes it in the format
//! of `go tool pprof`, which Pyroscope, Parca and other tools read as well; [`Profile::to_flame_graph`] draws a picture, and
//! [`Profile::to_folded`] writes the lines that flame-graph tools read.
//!
//! ```no_run
//! use opentelemetry_instrumentation_runtime::profile;
//!
//! # fn main() -> std::io::Result<()> {
//! std::fs::write("threads.pb.gz", profile::threads().to_pprof())
//! # }
//! ```
//!
//! # Requirements
//! Linux on x86-64 or aarch64. Elsewhere everything compiles, functions that can fail return [`Error::Unsupported`], and
//! profiles are empty and say so by [`Profile::error`].
//!
//! Stacks are walked by the tables that unwinding uses. Frame pointers are not needed, and neither is `panic = "unwind"` as
//! long as the tables are not removed. Names come from the executable's symbol table, files, lines and inlined functions from
//! its debug information: `debug = "line-tables-only"` in the Cargo profile is enough. In a stripped executable
//! a profile has addresses and build ids only, from which `go tool pprof` finds the names in a copy that has its debug
//! information.

#[cfg(all(
    tokio_unstable,
    tokio_taskdump,
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod await_points;
mod cpu;
mod delta;
mod display;
mod error;
mod flame;
mod folded;
mod frames;
#[cfg(test)]
mod fuzz;
mod heap;
mod notifier;
mod object_file;
#[cfg(feature = "otlp-profiles")]
mod otlp;
mod pprof;
mod protobuf;
mod sampled;
mod stall;
mod stalls;
mod symbols;
mod tasks;
mod threads;
#[cfg(feature = "monitor")]
mod top;
mod tree;
#[cfg(feature = "debug")]
mod view;
mod worker;

#[cfg(all(
    tokio_unstable,
    tokio_taskdump,
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub use await_points::tasks_with_await_points;
pub use cpu::cpu;
#[cfg(any(feature = "debug", feature = "otlp-profiles"))]
pub(crate) use cpu::cpu_while;
pub use error::Error;
pub use heap::{HeapProfile, allocs, heap};
pub use sampled::{Label, Profile, ProfileKind, Sample, SampleType};
pub use stall::{Stall, StallStack};
pub use stalls::stalls;
pub use tasks::tasks;
pub use threads::threads;

pub(crate) use notifier::{Notifier, OnStall};
#[cfg(feature = "otlp-profiles")]
pub(crate) use otlp::Encoder;
#[cfg(feature = "debug")]
pub(crate) use stalls::stack_of;
pub(crate) use stalls::{StallSeen, note_stalled};
#[cfg(feature = "debug")]
pub(crate) use symbols::names;
#[cfg(feature = "monitor")]
pub(crate) use top::{GrownStack, grown};
#[cfg(feature = "debug")]
pub(crate) use view::View;
