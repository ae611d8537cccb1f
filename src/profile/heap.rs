//! The profiles of the counting allocator's samples: where memory is held, and where it was allocated.

use super::error::Error;
use super::sampled::{Label, Profile, ProfileKind, Sample, SampleType};
use crate::count::allocator::samples::{self, FRACTION, SiteTotals, Sum};
use crate::count::allocator::{self, Totals};
use crate::count::task::{self, NameId};
use crate::stack;
use crate::util::mutex::Mutex;

/// Go's names in Go's order.
const TYPES: [SampleType; 4] = [
    SampleType::new("alloc_objects", "count"),
    SampleType::new("alloc_space", "bytes"),
    SampleType::new("inuse_objects", "count"),
    SampleType::new("inuse_space", "bytes"),
];

/// The mean of the heap profile that runs, or of the last one that ran.
static STATE: Mutex<State> = Mutex::new(State { mean: 0, is_running: false });

struct State {
    mean: u64,
    is_running: bool,
}

/// The running heap profile: samples of what the process allocates, with their stacks.
///
/// It needs a global allocator that can take samples, made by
/// [`CountingAllocator::sampled`](crate::CountingAllocator::sampled):
///
/// ```no_run
/// use std::alloc::System;
///
/// use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile};
/// use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};
///
/// #[global_allocator]
/// static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     HeapProfile::start(HeapProfile::DEFAULT_MEAN)?;
///     // ...
///     std::fs::write("heap.pb.gz", profile::heap().to_pprof())?; // go tool pprof heap.pb.gz
///     Ok(())
/// }
/// ```
///
/// Every byte that is allocated has the same chance to be sampled, so that large blocks are sampled nearly always and small
/// ones rarely; each sample stands for as many blocks as its size makes likely. [`heap`] and [`allocs`] estimate from that
/// what every place in the program holds and has allocated.
///
/// One profile runs in a process. Dropping the value does not stop it. After `fork` it continues in the child.
#[derive(Debug)]
pub struct HeapProfile {
    _private: (),
}

impl HeapProfile {
    /// The mean distance between samples that suits most programs: 512 KiB, as in Go.
    pub const DEFAULT_MEAN: u64 = 512 * 1024;

    /// The default limit of the samples' memory: 64 MiB, of which only the used part is resident.
    pub const DEFAULT_MAX_MEMORY: usize = 64 * 1024 * 1024;

    /// Starts to take samples, one in `mean` bytes on average.
    ///
    /// A thread notices it with its next 32 KiB of allocations. Samples of an earlier profile stay, with their own weights.
    ///
    /// # Errors
    /// * [`Error::NotSampled`]: the global allocator cannot take samples.
    /// * [`Error::InvalidMean`]: the mean is zero.
    /// * [`Error::AlreadyRunning`]: a heap profile runs already.
    /// * [`Error::NoMemory`]: there is no memory for samples.
    /// * [`Error::Unsupported`] and [`Error::NoUnwindTables`]: no stacks can be taken.
    pub fn start(mean: u64) -> Result<HeapProfile, Error> {
        HeapProfile::start_bounded(mean, HeapProfile::DEFAULT_MAX_MEMORY)
    }

    /// Starts to take samples, as [`start`](Self::start) does, and sets how many bytes of memory samples may take.
    ///
    /// Samples for which there is no place are dropped, and the comments of the profile say how many. The bound of the
    /// first start holds as long as the process lives.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub fn start_bounded(mean: u64, max_memory: usize) -> Result<HeapProfile, Error> {
        if mean == 0 {
            return Err(Error::InvalidMean);
        }
        if !allocator::can_sample() {
            return Err(Error::NotSampled);
        }
        let mut state = STATE.lock();
        if state.is_running {
            return Err(Error::AlreadyRunning);
        }
        stack::prepare()?;
        if !samples::prepare(max_memory, current_task) {
            return Err(Error::NoMemory);
        }
        *state = State { mean, is_running: true };
        allocator::set_mean(mean);
        Ok(HeapProfile { _private: () })
    }

    /// Returns the heap profile that runs, such as the one that
    /// [`Builder::heap_profile`](crate::Builder::heap_profile) started.
    pub fn running() -> Option<HeapProfile> {
        STATE.lock().is_running.then_some(HeapProfile { _private: () })
    }

    /// Returns the mean distance between samples, in bytes.
    pub fn mean(&self) -> u64 {
        STATE.lock().mean
    }

    /// Continues with another mean. Samples that were taken keep their weights.
    ///
    /// # Errors
    /// * [`Error::InvalidMean`]: the mean is zero.
    /// * [`Error::NotRunning`]: the profile was stopped elsewhere.
    pub fn restart(&self, mean: u64) -> Result<(), Error> {
        if mean == 0 {
            return Err(Error::InvalidMean);
        }
        let mut state = STATE.lock();
        if !state.is_running {
            return Err(Error::NotRunning);
        }
        state.mean = mean;
        allocator::set_mean(mean);
        Ok(())
    }

    /// Stops taking samples. Blocks that were sampled stay in the profile until they are freed.
    pub fn stop(self) {
        let mut state = STATE.lock();
        state.is_running = false;
        allocator::set_mean(0);
    }
}

/// Returns the memory in use and allocated by each place in the program, sorted by use, like Go's `heap` profile.
///
/// The values are Go's: `alloc_objects`, `alloc_space`, `inuse_objects`, `inuse_space`, estimated for what was allocated
/// since the profile was started. [`Profile::exact_total`] is the exact number of bytes in use of the whole process,
/// [`Profile::standard_error`] that of the estimate.
///
/// The memory that the library takes for this profile, and to look up names for any profile, is left out of the samples,
/// but not of the exact total: the estimate is lower than it while another thread looks names up.
///
/// Samples have the labels `thread`, the name of the thread that allocated; `task`, the name of the task that was polled; and
/// `bytes`, the mean size of the blocks.
///
/// Without a heap profile the result is empty and [`Profile::error`] says why.
pub fn heap() -> Profile {
    profile(ProfileKind::Heap, Totals::used, samples::variance_in_use)
}

/// Returns the same samples as [`heap`], sorted by allocated memory, like Go's `allocs` profile.
///
/// [`Profile::exact_total`] is the exact number of bytes that the whole process has allocated since its start.
pub fn allocs() -> Profile {
    profile(
        ProfileKind::Allocs,
        |totals| totals.allocated,
        || {
            let mut sum = 0.0;
            samples::for_each_site(|site| sum += site.variance);
            sum
        },
    )
}

fn profile(kind: ProfileKind, exact: impl Fn(&Totals) -> u64, variance: impl Fn() -> f64) -> Profile {
    let State { mean, is_running } = *STATE.lock();
    if mean == 0 {
        let error = if allocator::can_sample() { Error::NotRunning } else { Error::NotSampled };
        return Profile::empty(kind, &TYPES, error);
    }
    let exact_total = exact(&allocator::totals());
    let standard_error = variance().sqrt();
    // An endpoint keeps one profile until it takes the next, whose difference would show the first.
    let mut profile = samples::without_samples(|| {
        let mut list = Vec::new();
        samples::for_each_site(|site| list.push(sample(site)));
        Profile::new(kind, &TYPES, list)
    });
    profile.period = Some((SampleType::new("space", "bytes"), i64::try_from(mean).unwrap_or(i64::MAX)));
    profile.exact_total = Some(exact_total);
    profile.standard_error = Some(standard_error);
    profile.comments.extend((!is_running).then(|| "no samples are taken any more".to_owned()));
    let dropped = samples::dropped();
    profile.comments.extend(
        (dropped > 0).then(|| format!("{dropped} samples were dropped, since there was no memory for them")),
    );
    profile
}

fn sample(site: &SiteTotals) -> Sample {
    let in_use = site.in_use();
    let objects = |sum: Sum| round(sum.objects);
    let bytes = |sum: Sum| i64::try_from(sum.bytes).unwrap_or(i64::MAX);
    let mut labels: Vec<(&'static str, Label)> = Vec::new();
    labels.extend(site.task.map(task_name).map(|name| ("task", name.into())));
    labels.extend(thread_name(site.thread).map(|name| ("thread", name.into())));
    // The mean size of the place's blocks, as Go does it.
    let size = bytes(site.allocated).checked_div(objects(site.allocated)).unwrap_or_default();
    labels.push(("bytes", Label::Number(size, "bytes")));
    Sample {
        stack: site.frames.clone().into(),
        is_cut: site.is_cut,
        stand_in: None,
        values: vec![objects(site.allocated), bytes(site.allocated), objects(in_use), bytes(in_use)],
        labels,
    }
}

/// Rounds a number with [`FRACTION`] bits behind the point.
fn round(number: u64) -> i64 {
    (number.saturating_add(1 << (FRACTION - 1)) >> FRACTION) as i64
}

/// Returns the name of a thread from the bytes that the operating system keeps, which end with a zero.
fn thread_name(bytes: u128) -> Option<String> {
    let bytes = bytes.to_ne_bytes();
    let name = bytes.split(|byte| *byte == 0).next()?;
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
}

/// Returns the number of the task name that the calling thread polls under.
fn current_task() -> Option<u32> {
    task::current_task().and_then(|name| u32::try_from(name.index()).ok())
}

fn task_name(number: u32) -> &'static str {
    task::task_name(NameId::new(number as usize))
}
