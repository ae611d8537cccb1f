//! A stall of a worker, as handlers see it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::display::Backtrace;
use super::frames::{first_of_program, shown};
use super::sampled::{ProfileKind, Sample};
use super::symbols::Symbols;
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
    /// The stack of the worker's thread. `None` if it could not be taken or does not lead to the worker's loop.
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
pub struct StallStack(Arc<Stack>);

impl StallStack {
    pub(crate) fn new(stack: Stack) -> Self {
        StallStack(Arc::new(stack))
    }

    pub(crate) fn stack(&self) -> &Stack {
        &self.0
    }

    /// Returns the return addresses, leaf first.
    pub fn addresses(&self) -> &[usize] {
        &self.0.frames
    }

    /// Returns the first function that belongs neither to the standard library nor to Tokio nor to the C library. Looks names
    /// up as `Display` does.
    pub fn first_frame_of_program(&self) -> Option<String> {
        let symbols = self.symbols();
        first_of_program(&shown(ProfileKind::Stalls, &self.sample(), &symbols))
            .map(|frame| frame.name.to_string())
    }

    fn symbols(&self) -> Symbols {
        Symbols::load(self.0.frames.iter().copied(), &stack::objects())
    }

    fn sample(&self) -> Sample {
        Sample { stack: self.0.frames.clone(), is_cut: self.0.is_cut, ..Sample::default() }
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
