//! Adds up the samples of a heap profile. Test programs include this file, because the package of the allocator's tests builds
//! without the library `support`.

use opentelemetry_instrumentation_runtime::profile::{Label, Profile, Sample};

/// Returns the sums of one thread's samples: objects and bytes allocated, then objects and bytes in use.
pub fn sums(profile: &Profile, thread: &str) -> [i64; 4] {
    assert_eq!(profile.error(), None);
    let thread = Label::from(thread.to_owned());
    let is_of_thread =
        |sample: &&Sample| sample.labels().any(|(key, label)| key == "thread" && *label == thread);
    let mut sums = [0; 4];
    for sample in profile.samples().iter().filter(is_of_thread) {
        sums.iter_mut().zip(sample.values()).for_each(|(sum, value)| *sum += value);
    }
    sums
}
