//! The profile of all threads' stacks.

use std::time::Duration;

use super::error::Error;
use super::sampled::{Profile, ProfileKind, Sample, SampleType};
use crate::stack::{self, Reason};

const TYPES: [SampleType; 1] = [SampleType::new("threads", "count")];

/// The time to wait for a running thread's answer. Threads may have to wait for a CPU.
const PATIENCE: Duration = Duration::from_millis(100);

/// Returns the stacks of all threads of the process, as they are now, with the label `thread` for the thread's name.
///
/// Threads that wait do not notice it. A thread that runs is interrupted by one SIGURG for some microseconds. A program's own
/// handler of SIGURG is called as well, since the kernel merges signals that arrive together. The stacks are
/// taken one after the other, at well below a millisecond each. A thread that cannot be asked has no stack, and
/// [`Profile::error`] says why; threads that end meanwhile are left out.
///
/// ```
/// use opentelemetry_instrumentation_runtime::profile;
///
/// println!("{}", profile::threads().to_folded());
/// ```
pub fn threads() -> Profile {
    if let Err(reason) = stack::prepare() {
        return Profile::empty(ProfileKind::Threads, &TYPES, reason.into());
    }
    let mut samples = Vec::new();
    let mut error = None;
    for thread in stack::threads() {
        // Before the stack: the thread may end.
        let name = stack::thread_name(thread);
        let mut sample = Sample { values: vec![1], ..Sample::default() };
        match stack::of_thread(thread, PATIENCE) {
            Ok(stack) => {
                sample.stack = stack.frames;
                sample.is_cut = stack.is_cut;
            }
            Err(Reason::Ended) => continue,
            Err(reason) => error = Some(Error::from(reason)),
        }
        sample.labels.extend(name.map(|name| ("thread", name.into())));
        samples.push(sample);
    }
    Profile { error, ..Profile::new(ProfileKind::Threads, &TYPES, samples) }
}
