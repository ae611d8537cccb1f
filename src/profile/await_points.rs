//! Live tasks by the place where each of them waits, from Tokio's task dump.

use tokio::runtime::Handle;
use tokio::runtime::dump::{Backtrace, Dump};

use super::error::Error;
use super::sampled::{Profile, ProfileKind, Sample};
use super::tasks::TYPES;
use crate::stack;

/// Returns the live tasks of a runtime, each with the stack of the `await` that it waits in, the innermost first.
///
/// It exists with `RUSTFLAGS='--cfg tokio_unstable --cfg tokio_taskdump'`, on Linux on x86-64 and aarch64; the second cfg turns
/// on Tokio's feature `taskdump`. It answers where tasks wait, once [`tasks`](super::tasks()) has shown that there are too many. A task that waits for several futures, as
/// in `join!`, has a sample for each of them. Tasks of a `LocalSet` are left out. A future that does not come from Tokio
/// shows the place where its task last waited for Tokio, or nothing.
///
/// # What it disturbs
/// Do not call it in a program that must not fail, nor at intervals:
/// * It stops all workers of the runtime and polls every task once in a special mode. In a test, 20 000 tasks took 79 ms, in
///   which the runtime did nothing else. Futures of the program run in this poll, up to their first future of Tokio.
/// * Code that does not expect such a poll misbehaves: this call has aborted a server in a test.
/// * Afterwards, a thread of the blocking pool reads the debug information, which takes memory and some 100 ms at first.
/// * The call never returns while a worker is blocked for longer than 250 ms. Use it with `tokio::time::timeout`.
/// * Tasks of a current-thread runtime can be shown within that runtime only.
/// * Each poll of a task that is counted under a name counts as one more poll of it.
///
/// ```no_run
/// use opentelemetry_instrumentation_runtime::profile;
///
/// # async fn show() {
/// let runtime = tokio::runtime::Handle::current();
/// println!("{}", profile::tasks_with_await_points(&runtime).await.to_folded());
/// # }
/// ```
pub async fn tasks_with_await_points(runtime: &Handle) -> Profile {
    if let Err(reason) = stack::prepare() {
        return Profile::empty(ProfileKind::Tasks, &TYPES, reason.into());
    }
    let dump = runtime.dump().await;
    let total = dump.tasks().iter().count() as u64;
    // Tokio reads the debug information for each address.
    let samples = runtime.spawn_blocking(move || samples(&dump)).await;
    match samples {
        Ok(samples) => {
            Profile { exact_total: Some(total), ..Profile::new(ProfileKind::Tasks, &TYPES, samples) }
        }
        Err(_) => Profile::empty(ProfileKind::Tasks, &TYPES, Error::NoAnswer),
    }
}

fn samples(dump: &Dump) -> Vec<Sample> {
    let mut samples = Vec::new();
    for task in dump.tasks().iter() {
        let stacks = task.trace().resolve_backtraces();
        if stacks.is_empty() {
            samples.push(Sample { values: vec![1], ..Sample::default() });
        }
        samples.extend(stacks.iter().map(|stack| Sample {
            values: vec![1],
            stack: addresses(stack),
            ..Sample::default()
        }));
    }
    samples
}

fn addresses(stack: &Backtrace) -> Box<[usize]> {
    stack.frames().map(|frame| frame.ip().addr()).collect()
}
