//! Profiles and what they consist of.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::error::Error;
use crate::stack::{self, Object};

/// The subject of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProfileKind {
    /// Memory by where it was allocated, with what is in use shown first.
    Heap,
    /// Memory by where it was allocated, with all that ever was allocated shown first.
    Allocs,
    /// Stalls of Tokio's workers by what the worker was doing.
    Stalls,
    /// CPU time by where it was used.
    Cpu,
    /// Tasks by where they were spawned.
    Tasks,
    /// Threads by where they are.
    Threads,
}

impl ProfileKind {
    /// The index of the value that is shown first.
    pub(crate) fn default_value(self) -> usize {
        match self {
            ProfileKind::Heap => 3,
            ProfileKind::Allocs | ProfileKind::Stalls | ProfileKind::Cpu => 1,
            ProfileKind::Tasks | ProfileKind::Threads => 0,
        }
    }
}

/// The meaning of a sample's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SampleType {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

impl SampleType {
    pub(crate) const fn new(name: &'static str, unit: &'static str) -> Self {
        SampleType { name, unit }
    }

    /// Returns the name, such as `inuse_space`. Where Go has the same value, it is Go's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the unit: `count`, `bytes` or `nanoseconds`.
    pub fn unit(&self) -> &'static str {
        self.unit
    }
}

/// The value of a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Label {
    /// A text, such as the name of a task.
    Text(Cow<'static, str>),
    /// A number with its unit, such as the size of an allocation in `bytes`.
    Number(i64, &'static str),
}

impl From<String> for Label {
    fn from(text: String) -> Self {
        Label::Text(text.into())
    }
}

impl From<&'static str> for Label {
    fn from(text: &'static str) -> Self {
        Label::Text(text.into())
    }
}

/// A stack with its values.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Return addresses, leaf first.
    pub(crate) stack: Box<[usize]>,
    /// True if the root end of the stack is missing.
    pub(crate) is_cut: bool,
    /// Stands for a stack that is not known, such as `[threads that ended unseen]`.
    pub(crate) stand_in: Option<&'static str>,
    /// One for each type of the profile.
    pub(crate) values: Vec<i64>,
    /// In the order in which they are written.
    pub(crate) labels: Vec<(&'static str, Label)>,
}

impl Sample {
    /// Returns the return addresses of the stack, leaf first. Empty if no stack could be taken.
    pub fn stack(&self) -> &[usize] {
        &self.stack
    }

    /// Returns true if the root end of the stack is missing, because the stack is deeper than 64 frames or leads through code
    /// without unwind tables.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Returns the values, one for each of [`Profile::sample_types`].
    pub fn values(&self) -> &[i64] {
        &self.values
    }

    /// Returns the labels, such as `task` and `thread`.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, &Label)> {
        self.labels.iter().map(|(key, label)| (*key, label))
    }
}

/// Sampled stacks with values and labels.
///
/// ```
/// use opentelemetry_instrumentation_runtime::profile;
///
/// let threads = profile::threads();
/// for line in threads.to_folded().lines() {
///     println!("{line}"); // such as `std::rt::lang_start;my_service::main;std::thread::sleep 1`
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Profile {
    pub(crate) kind: ProfileKind,
    pub(crate) types: Vec<SampleType>,
    pub(crate) samples: Vec<Sample>,
    /// The objects that the addresses lie in.
    pub(crate) objects: Arc<[Object]>,
    pub(crate) time: SystemTime,
    pub(crate) duration: Duration,
    /// The sampled event, and the number of events for each sample.
    pub(crate) period: Option<(SampleType, i64)>,
    pub(crate) exact_total: Option<u64>,
    pub(crate) standard_error: Option<f64>,
    pub(crate) error: Option<Error>,
    /// Facts about the profile, for readers: samples that were lost, for example.
    pub(crate) comments: Vec<String>,
}

impl Profile {
    /// Makes a profile of samples that were taken just now. Samples with the same stack and labels are added up.
    ///
    /// The other fields are the caller's to set: they say nothing until then.
    pub(crate) fn new(kind: ProfileKind, types: &[SampleType], samples: Vec<Sample>) -> Self {
        stack::refresh();
        let mut profile = Profile {
            kind,
            types: types.to_vec(),
            samples: add_up(samples),
            objects: stack::objects().into(),
            time: SystemTime::now(),
            duration: Duration::ZERO,
            period: None,
            exact_total: None,
            standard_error: None,
            error: None,
            comments: Vec::new(),
        };
        profile.sort();
        profile
    }

    /// Makes a profile without samples that says why it has none.
    pub(crate) fn empty(kind: ProfileKind, types: &[SampleType], error: Error) -> Self {
        Profile { error: Some(error), ..Profile::new(kind, types, Vec::new()) }
    }

    /// Puts the largest first, so that equal profiles are written alike.
    pub(crate) fn sort(&mut self) {
        let index = self.kind.default_value();
        let value = |sample: &Sample| sample.values.get(index).copied().unwrap_or_default();
        self.samples.sort_by(|a, b| {
            value(b).unsigned_abs().cmp(&value(a).unsigned_abs()).then_with(|| a.stack.cmp(&b.stack))
        });
    }

    /// Returns the subject of the profile.
    pub fn kind(&self) -> ProfileKind {
        self.kind
    }

    /// Returns the meaning of the samples' values, in their order.
    pub fn sample_types(&self) -> &[SampleType] {
        &self.types
    }

    /// Returns the samples, the largest first.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Returns when the profile was taken: the end of its duration.
    pub fn time(&self) -> SystemTime {
        self.time
    }

    /// Returns how long samples were taken. Zero for a profile of one moment.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Returns the reason why the profile has no samples, or fewer than it should have. `None` if it is complete.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Returns remarks about the profile, such as how many samples were lost.
    pub fn comments(&self) -> impl Iterator<Item = &str> {
        self.comments.iter().map(String::as_str)
    }

    /// Returns the sum of the values that are shown first: bytes in use (heap), bytes allocated (allocs), nanoseconds (stalls,
    /// CPU), or a number of threads or tasks.
    pub fn total(&self) -> i64 {
        let index = self.kind.default_value();
        let values = self.samples.iter().filter_map(|sample| sample.values.get(index));
        values.fold(0, |sum: i64, value| sum.saturating_add(*value))
    }

    /// Returns the exact count of the quantity that [`total`](Self::total) estimates. `None` if nothing counts it.
    pub fn exact_total(&self) -> Option<u64> {
        self.exact_total
    }

    /// Returns the standard error of [`total`](Self::total), in the same unit. `None` if the total is no estimate.
    pub fn standard_error(&self) -> Option<f64> {
        self.standard_error
    }
}

/// Adds up the values of samples with the same stack and texts. A label with a number describes a sample, such as the mean size
/// of its blocks, which changes while a place goes on allocating: the first one stays.
pub(crate) fn add_up(samples: Vec<Sample>) -> Vec<Sample> {
    let mut places = HashMap::with_capacity(samples.len());
    let mut sums: Vec<Sample> = Vec::new();
    for sample in samples {
        let texts = sample.labels.iter().filter(|(_, label)| !matches!(label, Label::Number(..)));
        let texts: Vec<_> = texts.cloned().collect();
        let key = (sample.stack.clone(), sample.is_cut, sample.stand_in, texts);
        let place = *places.entry(key).or_insert(sums.len());
        match sums.get_mut(place) {
            Some(sum) => {
                for (sum, value) in sum.values.iter_mut().zip(&sample.values) {
                    *sum = sum.saturating_add(*value);
                }
            }
            None => sums.push(sample),
        }
    }
    sums
}
