//! Spawns tasks under a name.

use std::borrow::Cow;

use tokio::task::JoinHandle;

use super::counters::Event;
use super::lookup::name_of_text;
use super::name::NameId;
use super::named::{NamedTask, caller};
use super::thread::{Measure, count};

/// Spawns a task as [`tokio::spawn`] does, and counts it under the place where this is called, `src/server.rs:88`: see
/// [`with_task_location`](crate::TaskExt::with_task_location).
///
/// # Panics
/// Outside a Tokio runtime, as [`tokio::spawn`].
///
/// ```
/// # async fn serve() {}
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// opentelemetry_instrumentation_runtime::spawn(serve()).await.unwrap();
/// # });
/// ```
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(NamedTask::new(future, caller()))
}

/// Runs a closure on Tokio's blocking pool as [`tokio::task::spawn_blocking`] does, and counts it as a task under the
/// place where this is called, `src/server.rs:88`.
///
/// It is alive from now on, while it waits for a thread and while it runs. Its run counts as one poll, which is never a
/// slow one, since it holds no worker.
///
/// # Panics
/// Outside a Tokio runtime, as [`tokio::task::spawn_blocking`].
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let sum = opentelemetry_instrumentation_runtime::spawn_blocking(|| (1..=100).sum::<u64>());
/// assert_eq!(sum.await.unwrap(), 5050);
/// # });
/// ```
#[track_caller]
pub fn spawn_blocking<F, R>(run: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    spawn_counted(caller(), run)
}

/// Runs a closure on Tokio's blocking pool as [`spawn_blocking`] does, and counts it under a name.
///
/// # Panics
/// Outside a Tokio runtime, as [`tokio::task::spawn_blocking`].
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use opentelemetry_instrumentation_runtime::spawn_blocking_named;
///
/// spawn_blocking_named("checksum", || (1..=100).sum::<u64>()).await.unwrap();
/// # });
/// ```
#[track_caller]
pub fn spawn_blocking_named<F, R>(name: impl Into<Cow<'static, str>>, run: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    spawn_counted(name_of_text(name.into()), run)
}

#[track_caller]
fn spawn_counted<F, R>(name: NameId, run: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let closure = Closure::new(name);
    tokio::task::spawn_blocking(move || closure.run(run))
}

/// A closure that waits or runs. Its end is counted when it returns, panics or is dropped before it ran.
struct Closure {
    name: NameId,
    end: Event,
    measure: Option<Measure>,
}

impl Closure {
    fn new(name: NameId) -> Self {
        count(name, Event::Spawned);
        Closure { name, end: Event::Cancelled, measure: None }
    }

    fn run<R>(mut self, run: impl FnOnce() -> R) -> R {
        self.measure = Some(Measure::start(Some(self.name)));
        // This stands until `run` has returned, since a panic leaves no time to note it.
        self.end = Event::Panicked;
        let result = run();
        self.end = Event::Completed;
        result
    }
}

impl Drop for Closure {
    fn drop(&mut self) {
        if let Some(measure) = self.measure {
            measure.end_blocking(self.name);
        }
        count(self.name, self.end);
    }
}
