//! The profile of CPU time.

use std::process;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};

use super::error::Error;
use super::sampled::{Profile, ProfileKind, Sample, SampleType, add_up};
use crate::count::task::current_task_name;
use crate::stack::{self, CpuSample, Sampler};

const CPU: SampleType = SampleType::new("cpu", "nanoseconds");
const TYPES: [SampleType; 2] = [SampleType::new("samples", "count"), CPU];

/// 100 samples for each second of CPU time.
const PERIOD: Duration = Duration::from_millis(10);
const MAX_DURATION: Duration = Duration::from_secs(3600);
/// After how many samples equal ones are added up.
const MANY: usize = 4096;

/// Stands for the time of threads without any sample.
const UNSEEN: &str = "[threads that were not sampled]";

/// The process that is taking a profile, so that a child does not wait for its parent's.
static TAKEN_BY: AtomicU32 = AtomicU32::new(0);

/// Samples where the process uses CPU time, for a duration. Blocks the calling thread meanwhile.
///
/// Each thread copies its stack after every 10 ms of CPU time that it has used; the calling thread walks the copies. The profile
/// has the values of Go's, `samples/count` and `cpu/nanoseconds`, and the labels `thread`
/// and, while a task with a name is polled, `task`. A sample's nanoseconds are what its
/// thread has used since the sample before, by the thread's clock; what it has used after its last sample counts for that
/// one. Threads that start meanwhile are included, the calling thread is left out.
///
/// [`Profile::exact_total`] is the CPU time of the process by the kernel's account. A thread that ends takes its clock along: what
/// it has used after it was last seen, some milliseconds ago, is what the process has used and no other thread accounts
/// for. Threads that end together share such time equally. Time that belongs to no stack, because its thread was never
/// sampled, is a separate sample without a stack, so that [`Profile::total`] is the same number.
///
/// It uses SIGPROF and a timer for each thread and, from Linux 6.4 on, one for the process while threads start and end. While it runs, the program's SIGPROF handler gets the signals that
/// the library has not sent; afterwards, timers and handler are gone. As with every profile by signals, a system call of a thread that has just
/// used up 10 ms of CPU time may end early with `EINTR`.
///
/// [`Profile::comments`] say what the profile itself has cost: the time for which the handler held each thread up, without the
/// kernel's delivery of the signal, and the CPU time of the calling thread.
///
/// # Errors
/// * [`Error::AlreadyRunning`] while another call takes a profile.
/// * [`Error::InvalidDuration`] for a duration of zero or of more than an hour.
/// * [`Error::Refused`] if the system does not allow timers, signal handlers or `process_vm_readv`.
/// * [`Error::Unsupported`] and [`Error::NoUnwindTables`] where stacks cannot be taken.
///
/// ```no_run
/// use std::time::Duration;
///
/// use opentelemetry_instrumentation_runtime::profile;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let profile = profile::cpu(Duration::from_secs(10))?;
/// std::fs::write("cpu.pb.gz", profile.to_pprof())?;
/// # Ok(())
/// # }
/// ```
pub fn cpu(duration: Duration) -> Result<Profile, Error> {
    cpu_while(duration, |pause| {
        thread::sleep(pause);
        true
    })
}

/// Does what [`cpu`] does, and ends early when `pause`, which waits for the given time, returns false.
pub(crate) fn cpu_while(
    duration: Duration,
    mut pause: impl FnMut(Duration) -> bool,
) -> Result<Profile, Error> {
    if duration.is_zero() || duration > MAX_DURATION {
        return Err(Error::InvalidDuration);
    }
    stack::prepare()?;
    let _turn = Turn::take()?;
    let mut samples = Vec::new();
    let start = Instant::now();
    let mut sampler = Sampler::start(PERIOD, current_task_name)?;
    let mut interval = Duration::from_millis(5);
    while let Some(left) = duration.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        if !pause(interval.min(left)) {
            break;
        }
        interval = sampler.look(|sample| samples.push(to_sample(sample)));
        stack::refresh();
        if samples.len() > MANY {
            samples = add_up(samples);
        }
    }
    let summary = sampler.stop(|sample| samples.push(to_sample(sample)));
    let accounted: i64 = samples.iter().filter_map(|sample| sample.values.get(1)).sum();
    let unseen = nanos(summary.used) - accounted;
    if unseen > 0 {
        samples.push(Sample { stand_in: Some(UNSEEN), values: vec![0, unseen], ..Sample::default() });
    }
    let mut profile = Profile::new(ProfileKind::Cpu, &TYPES, samples);
    profile.duration = start.elapsed();
    profile.period = Some((CPU, nanos(PERIOD)));
    profile.exact_total = u64::try_from(nanos(summary.used)).ok();
    profile.error = summary.unsampled.map(Error::from);
    profile.comments.extend(summary.copying.map(|(least, median)| {
        let own = summary.own;
        format!("each sample took its thread {median:.1?} (median, at least {least:.1?}), the profile {own:.1?} of CPU time")
    }));
    if summary.lost > 0 {
        profile.comments.push(format!("{} samples were lost", summary.lost));
    }
    Ok(profile)
}

fn to_sample(sample: CpuSample) -> Sample {
    Sample {
        stack: sample.stack.frames,
        is_cut: sample.stack.is_cut,
        values: vec![sample.periods.into(), nanos(sample.used)],
        labels: sample
            .task
            .map(|task| ("task", task.into()))
            .into_iter()
            .chain(sample.thread_name.map(|name| ("thread", name.into())))
            .collect(),
        ..Sample::default()
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The right to take a profile, which one thread has at a time.
struct Turn;

impl Turn {
    fn take() -> Result<Turn, Error> {
        let own = process::id();
        let other = TAKEN_BY.load(Acquire);
        let is_free = other != own && TAKEN_BY.compare_exchange(other, own, AcqRel, Acquire).is_ok();
        if is_free { Ok(Turn) } else { Err(Error::AlreadyRunning) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN_BY.store(0, Release);
    }
}
