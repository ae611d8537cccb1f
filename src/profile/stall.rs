//! A stall of a worker, as handlers see it.

use std::fmt;
#[cfg(feature = "debug")]
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::display::Backtrace;
#[cfg(feature = "debug")]
use super::flame::short_path;
use super::frames::{first_of_program, shown};
use super::sampled::{ProfileKind, Sample};
use super::symbols::{Frame, Symbols};
use crate::stack::{self, Stack};

/// A worker of a Tokio runtime that makes no progress, while it makes none.
///
/// [`Builder::on_stall`](crate::Builder::on_stall) hands it out. Its [`Display`](fmt::Display) output shows the stack as a panic's
/// backtrace does, from the function that the worker is in to the future that it polls; it looks the names up, which
/// takes some 100 ms for a large executable.
#[derive(Clone)]
#[non_exhaustive]
pub struct Stall {
    /// The name of the runtime, as `tokio.runtime.name` has it.
    pub runtime: Arc<str>,
    /// The index of the worker.
    pub worker: usize,
    /// The value of `tokio.stall.cause`: `blocked`, `running` or `starved`.
    pub cause: &'static str,
    /// The moment at which the stall began, as far as it is known.
    pub since: Instant,
    /// The name of the task that the worker polls. `None` if it has none.
    pub task_name: Option<&'static str>,
    /// The stack of the worker's thread. `None` if it could not be taken or does not lead to the worker's loop, which is known
    /// by name: a stalled worker of a stripped program has no stack.
    pub stack: Option<StallStack>,
}

impl Stall {
    /// Returns how long the stall has lasted.
    pub fn duration(&self) -> Duration {
        self.since.elapsed()
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stall { runtime, worker, cause, .. } = self;
        write!(f, "worker {worker} of runtime {runtime} is stalled ({cause}) for {:.1?}", self.duration())?;
        if let Some(task) = self.task_name {
            write!(f, " in task {task}")?;
        }
        writeln!(f)?;
        match &self.stack {
            Some(stack) => stack.fmt(f),
            None => writeln!(f, "   no stack"),
        }
    }
}

impl fmt::Debug for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The stack of a stalled worker.
#[derive(Clone)]
pub struct StallStack(Arc<Inner>);

struct Inner {
    stack: Stack,
    /// The first function of the program, once it was looked up.
    place: OnceLock<Option<Frame>>,
    /// True once a thread has begun to look it up.
    #[cfg(feature = "debug")]
    is_looked_up: AtomicBool,
}

impl StallStack {
    pub(crate) fn new(stack: Stack) -> Self {
        StallStack(Arc::new(Inner {
            stack,
            place: OnceLock::new(),
            #[cfg(feature = "debug")]
            is_looked_up: AtomicBool::new(false),
        }))
    }

    pub(crate) fn stack(&self) -> &Stack {
        &self.0.stack
    }

    /// Returns the first function of the program. The first caller looks it up, which takes some 100 ms.
    fn place(&self) -> Option<&Frame> {
        let look_up = || {
            let symbols = self.symbols();
            first_of_program(&shown(ProfileKind::Stalls, &self.sample(), &symbols)).cloned()
        };
        self.0.place.get_or_init(look_up).as_ref()
    }

    /// Returns the first function of the program with its file and line, if it is known already. Otherwise another thread
    /// looks it up for the next call.
    #[cfg(feature = "debug")]
    pub(crate) fn known_place(&self) -> Option<String> {
        if let Some(place) = self.0.place.get() {
            return place.as_ref().map(|frame| match &*frame.file {
                "" => frame.name.to_string(),
                file => format!("{} at {}:{}", frame.name, short_path(file), frame.line),
            });
        }
        if !self.0.is_looked_up.swap(true, Relaxed) {
            let stack = self.clone();
            let look_up = move || drop(stack.place().cloned());
            // Without a thread, the next call tries again.
            let thread = std::thread::Builder::new().name("runtime-stalls".into());
            let is_started = crate::util::thread::spawn(thread, look_up).is_ok();
            self.0.is_looked_up.store(is_started, Relaxed);
        }
        None
    }

    /// Returns the return addresses, leaf first.
    pub fn addresses(&self) -> &[usize] {
        &self.0.stack.frames
    }

    /// Returns the first function that belongs neither to the standard library nor to Tokio nor to the C library. The first
    /// call looks names up, as `Display` does.
    pub fn first_frame_of_program(&self) -> Option<String> {
        self.place().map(|frame| frame.name.to_string())
    }

    fn symbols(&self) -> Symbols {
        Symbols::load(self.0.stack.frames.iter().copied(), &stack::objects())
    }

    fn sample(&self) -> Sample {
        Sample { stack: self.0.stack.frames.clone(), is_cut: self.0.stack.is_cut, ..Sample::default() }
    }
}

impl fmt::Display for StallStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symbols = self.symbols();
        Backtrace(&shown(ProfileKind::Stalls, &self.sample(), &symbols)).fmt(f)
    }
}

impl fmt::Debug for StallStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
