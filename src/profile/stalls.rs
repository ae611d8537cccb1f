//! Keeps the stacks of stalled workers, with the time and the number of stalls.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use super::sampled::{Profile, ProfileKind, Sample, SampleType};
use super::stall::{Stall, StallStack};
use super::worker::{is_busy_worker, without_loop};
use crate::stack::{self, Stack};
use crate::util::mutex::Mutex;
use crate::util::{log, thread};

const TYPES: [SampleType; 2] = [SampleType::new("stalls", "count"), SampleType::new("delay", "nanoseconds")];

/// Stands for stalls that ended before the watcher looked.
const UNSEEN: &str = "[stalls that ended before they were seen]";
/// Stands for the stacks that there is no room for.
const OTHERS: &str = "[other stalls]";

static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

/// Returns the stalls of all watched workers since the process started, by the stack that the worker had: their number
/// (`stalls/count`) and their time (`delay/nanoseconds`), with the labels `cause`, `runtime` and `task`.
///
/// It is for Tokio's workers what Go's block profile is for goroutines. The watcher thread takes a stack when it notices
/// a stall, and again after 1 s and 10 s. Tokio's own frames are cut off the root. [`Profile::exact_total`] is the time by
/// the watcher's account, as in `tokio.worker.stall.time`; stalls that ended before their stack was taken are a
/// separate sample. At most 1000 stacks are kept; the rest is summed up.
///
/// It is empty unless a [`RuntimeMetrics`](crate::RuntimeMetrics) watches the runtime, with stalls on.
///
/// ```
/// use opentelemetry_instrumentation_runtime::profile;
///
/// println!("{}", profile::stalls());
/// ```
pub fn stalls() -> Profile {
    if let Err(reason) = stack::prepare() {
        return Profile::empty(ProfileKind::Stalls, &TYPES, reason.into());
    }
    let seen = SEEN.lock();
    let mut samples: Vec<Sample> = seen.rows.iter().map(|(row, sum)| row.sample(*sum)).collect();
    let exact = seen.stalled;
    drop(seen);
    let known: i64 = samples.iter().filter_map(|sample| sample.values.get(1)).sum();
    let unseen = exact - known;
    if unseen > 0 {
        samples.push(Sample { stand_in: Some(UNSEEN), values: vec![0, unseen], ..Sample::default() });
    }
    let mut profile = Profile::new(ProfileKind::Stalls, &TYPES, samples);
    profile.exact_total = u64::try_from(exact).ok();
    profile
}

type Candidates = Box<dyn Fn() -> Vec<u32>>;

/// One look at a worker that is stalled.
pub(crate) struct StallSeen {
    pub(crate) runtime: Arc<str>,
    pub(crate) worker: usize,
    pub(crate) cause: &'static str,
    pub(crate) since: Instant,
    /// The system's id of the worker's thread.
    pub(crate) thread: Option<u32>,
    /// Lists the threads that it could be if it is not known, which takes a while.
    pub(crate) candidates: Candidates,
    pub(crate) task: Option<&'static str>,
}

/// Notes that the stalled time of all workers has grown by so many nanoseconds.
pub(crate) fn note_stalled(growth: i64) {
    SEEN.lock().stalled += growth;
}

/// Returns the stack of a stall that goes on, if one was taken. `since` is its beginning, as [`StallSeen`] has it.
#[cfg(feature = "debug")]
pub(crate) fn stack_of(thread: Option<u32>, worker: usize, since: Instant) -> Option<StallStack> {
    SEEN.lock().present.get(&Key { thread, worker, since })?.stall.stack.clone()
}

/// Takes in a stall that goes on, as the watcher thread sees it at each tick. Takes a stack when the stall is new, and again
/// after 1 s and 10 s. Returns the stall, and how many stacks were taken of it: each of them is worth a notice.
pub(crate) fn record(seen: &StallSeen) -> (Arc<Stall>, u32) {
    let key = Key::of(seen);
    let now = Instant::now();
    let known = SEEN.lock().extend(key, now);
    let (stacks, failures) = known.as_ref().map_or((0, 0), |(_, stacks, failures)| (*stacks, *failures));
    if let Some((stall, ..)) = known
        && LOOK_AGAIN.get(stacks as usize).is_none_or(|after| seen.since.elapsed() < *after)
    {
        return (stall, stacks);
    }
    // Without the lock, since it takes a while.
    let stack = take(seen);
    let is_to_be_tried_again = stack.is_none() && failures < MAX_FAILURES;
    let stall = Arc::new(Stall {
        runtime: Arc::clone(&seen.runtime),
        worker: seen.worker,
        cause: seen.cause,
        since: seen.since,
        task_name: seen.task,
        stack,
    });
    if is_to_be_tried_again {
        SEEN.lock().note_failure(key, &stall);
        return (stall, stacks);
    }
    let stacks = SEEN.lock().add(key, &stall, now);
    (stall, stacks)
}

/// The number of further ticks at which to try again if a thread did not answer.
const MAX_FAILURES: u32 = 8;

/// The moments at which a stack is taken: at once, and again later.
const LOOK_AGAIN: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(10)];

/// The time to wait until a worker's thread is on a CPU, where it can answer. A starved one is there now and then.
const PATIENCE: Duration = Duration::from_millis(30);

/// More threads are not searched for the worker's.
const MAX_CANDIDATES: usize = 32;

fn take(seen: &StallSeen) -> Option<StallStack> {
    stack::prepare().ok()?;
    let of_busy_worker = |thread, patience| stack::of_thread(thread, patience).ok().filter(is_busy_worker);
    let stack = match seen.thread {
        Some(thread) => of_busy_worker(thread, PATIENCE)?,
        None => {
            let candidates = (seen.candidates)();
            if candidates.len() > MAX_CANDIDATES {
                return None;
            }
            // If several threads of the pool run tasks, it is not known which is the worker's.
            let mut stacks = candidates.into_iter().filter_map(|id| of_busy_worker(id, Duration::ZERO));
            stacks.next().filter(|_| stacks.next().is_none())?
        }
    };
    Some(StallStack::new(stack))
}

/// Logs a stall, for programs that have no handler: at most once a minute for each distinct stack. Names are looked up on
/// another thread, since the watcher has to go on.
pub(crate) fn warn(stall: &Arc<Stall>) {
    if !log::warning_is_read() || !SEEN.lock().take_log_turn(stall) {
        return;
    }
    // The stall may be over before its names are found.
    let (stall, duration) = (Arc::clone(stall), stall.duration());
    let log = move || {
        let place = stall.stack.as_ref().and_then(StallStack::first_frame_of_program);
        let place = place.as_deref().unwrap_or("a function that is not known");
        let Stall { runtime, worker, cause, .. } = &*stall;
        let task = stall.task_name.map(|name| format!(" in task {name}")).unwrap_or_default();
        let about =
            format!("worker {worker} of runtime {runtime}, {cause} for {duration:.1?} in {place}{task}");
        log::warn("a worker is stalled", &about);
    };
    // Without a thread there is no warning; the next one tries again.
    drop(thread::spawn(std::thread::Builder::new().name("runtime-stalls".into()), log));
}

/// A stall, for as long as it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    thread: Option<u32>,
    worker: usize,
    since: Instant,
}

impl Key {
    pub(crate) fn of(seen: &StallSeen) -> Self {
        Key { thread: seen.thread, worker: seen.worker, since: seen.since }
    }
}

/// The stalls since the process started.
#[derive(Default)]
struct Seen {
    present: HashMap<Key, Present>,
    rows: HashMap<Row, [i64; 2]>,
    /// The stalled time of the workers of all runtimes, in nanoseconds.
    stalled: i64,
    /// The moment at which a stall with a stack was logged last.
    logged: HashMap<Row, Instant>,
}

struct Present {
    stall: Arc<Stall>,
    stacks: u32,
    failures: u32,
    /// `None` before the first stack.
    row: Option<Row>,
    /// Until when its time is accounted for.
    until: Instant,
    seen: Instant,
}

impl Present {
    fn new(stall: &Arc<Stall>) -> Self {
        let (since, now) = (stall.since, Instant::now());
        Present { stall: Arc::clone(stall), stacks: 0, failures: 0, row: None, until: since, seen: now }
    }
}

/// The key by which stalls are added up.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Row {
    stack: Option<Stack>,
    cause: &'static str,
    runtime: Arc<str>,
    task: Option<&'static str>,
    /// True if it stands for stacks without room.
    is_rest: bool,
}

impl Seen {
    const MAX_ROWS: usize = 1000;
    /// After this time without a look a stall has ended.
    const FORGOTTEN: Duration = Duration::from_secs(10);

    /// Adds the time since the last look to a stall that goes on. Returns the stall as it is known, the number of stacks that
    /// were taken, and how often that failed since.
    fn extend(&mut self, key: Key, now: Instant) -> Option<(Arc<Stall>, u32, u32)> {
        let present = self.present.get_mut(&key)?;
        let known = (Arc::clone(&present.stall), present.stacks, present.failures);
        present.seen = now;
        if let Some(row) = present.row.clone() {
            let time = nanos(now.saturating_duration_since(present.until));
            present.until = now;
            self.add_to(row, 0, time);
        }
        Some(known)
    }

    fn note_failure(&mut self, key: Key, stall: &Arc<Stall>) {
        let new = || Present::new(stall);
        self.present.entry(key).or_insert_with(new).failures += 1;
    }

    /// Adds a stack of a stall, which may be new. Returns how many were taken of it.
    fn add(&mut self, key: Key, stall: &Arc<Stall>, now: Instant) -> u32 {
        self.present.retain(|_, present| now.saturating_duration_since(present.seen) < Self::FORGOTTEN);
        let mut row = Row::of(stall);
        if !self.rows.contains_key(&row) && self.rows.len() >= Self::MAX_ROWS {
            row = Row { stack: None, task: None, is_rest: true, ..row };
        }
        let present = self.present.entry(key).or_insert_with(|| Present::new(stall));
        present.stacks += 1;
        (present.failures, present.seen) = (0, now);
        present.stall = Arc::clone(stall);
        let is_first = present.row.replace(row.clone()).is_none();
        // The time until now belongs to this stack, unless there was one before.
        let time = nanos(now.saturating_duration_since(present.until));
        present.until = now;
        let stacks = present.stacks;
        self.add_to(row, i64::from(is_first), if is_first { time } else { 0 });
        stacks
    }

    fn add_to(&mut self, row: Row, stalls: i64, time: i64) {
        let [sum, nanos] = self.rows.entry(row).or_default();
        *sum += stalls;
        *nanos = nanos.saturating_add(time);
    }

    /// Returns true if a stall with this stack was not logged within the last minute, and notes that it is logged now.
    fn take_log_turn(&mut self, stall: &Stall) -> bool {
        const PAUSE: Duration = Duration::from_secs(60);
        let mut row = Row::of(stall);
        row.stack = row.stack.as_ref().map(without_loop);
        self.logged.retain(|_, time| time.elapsed() < PAUSE);
        let is_new = !self.logged.contains_key(&row) && self.logged.len() < Self::MAX_ROWS;
        if is_new {
            self.logged.insert(row, Instant::now());
        }
        is_new
    }
}

impl Row {
    fn of(stall: &Stall) -> Self {
        Row {
            stack: stall.stack.as_ref().map(|stack| stack.stack().clone()),
            cause: stall.cause,
            runtime: Arc::clone(&stall.runtime),
            task: stall.task_name,
            is_rest: false,
        }
    }

    fn sample(&self, values: [i64; 2]) -> Sample {
        let stack = self.stack.clone().unwrap_or_default();
        let mut labels = vec![("cause", self.cause.into()), ("runtime", self.runtime.to_string().into())];
        labels.extend(self.task.map(|task| ("task", task.into())));
        Sample {
            stack: stack.frames,
            is_cut: stack.is_cut,
            stand_in: self.is_rest.then_some(OTHERS),
            values: values.into(),
            labels,
        }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stall(address: usize, since: Instant) -> (Key, Arc<Stall>) {
        let stack = Stack { frames: [address].into(), is_cut: false };
        let stall = Stall {
            runtime: "main".into(),
            worker: 0,
            cause: "blocked",
            since,
            task_name: None,
            stack: Some(StallStack::new(stack)),
        };
        (Key { thread: Some(1), worker: 0, since }, Arc::new(stall))
    }

    #[test]
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn an_unknown_worker_is_found_by_its_stack_if_only_one_runs_a_task() {
        #![allow(unsafe_code, reason = "`gettid` has no safe interface")]
        use std::sync::mpsc::{self, Sender};

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let block = || -> (u32, Sender<()>) {
            let (started, id) = mpsc::channel();
            let (end, ended) = mpsc::channel();
            runtime.spawn(async move {
                // SAFETY: it takes nothing and returns a number.
                started.send(unsafe { libc::gettid() }.unsigned_abs()).unwrap();
                let _ = ended.recv();
            });
            (id.recv().unwrap(), end)
        };
        let stack_among = |candidates: &[u32]| {
            let candidates = candidates.to_vec();
            let seen = StallSeen {
                runtime: "main".into(),
                worker: 0,
                cause: "blocked",
                since: Instant::now(),
                thread: None,
                candidates: Box::new(move || candidates.clone()),
                task: None,
            };
            take(&seen)
        };
        // SAFETY: as above. This thread runs, and is no worker.
        let here = unsafe { libc::gettid() }.unsigned_abs();
        let (one, _end_one) = block();
        let start = Instant::now();
        while stack_among(&[here, one]).is_none() {
            assert!(start.elapsed() < Duration::from_secs(20), "no stack");
        }
        assert!(stack_among(&[here]).is_none());
        let (two, _end_two) = block();
        while stack_among(&[here, two]).is_none() {
            assert!(start.elapsed() < Duration::from_secs(40), "no stack");
        }
        assert!(stack_among(&[one, here, two]).is_none(), "which of the two is not known");
    }

    fn content(seen: &Seen) -> Vec<(usize, [i64; 2])> {
        let address = |row: &Row| row.stack.as_ref().map_or(0, |stack| stack.frames[0]);
        let mut rows: Vec<_> = seen.rows.iter().map(|(row, sum)| (address(row), *sum)).collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn time_goes_to_the_stack_that_was_seen_last_and_a_stall_counts_once() {
        let mut seen = Seen::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let (key, first) = stall(1, start);
        assert_eq!(seen.add(key, &first, at(100)), 1);
        seen.extend(key, at(300));
        // Twice at the same moment, as for two listeners.
        seen.extend(key, at(300));
        let (_, second) = stall(2, start);
        seen.extend(key, at(1000));
        assert_eq!(seen.add(key, &second, at(1000)), 2);
        seen.extend(key, at(1500));
        assert_eq!(content(&seen), [(1, [1, 1_000_000_000]), (2, [0, 500_000_000])]);
    }

    #[test]
    fn stacks_without_room_are_summed_up() {
        let mut seen = Seen::default();
        let start = Instant::now();
        for address in 1..=Seen::MAX_ROWS + 5 {
            let (key, stall) = stall(address, start + Duration::from_nanos(address as u64));
            seen.add(key, &stall, start + Duration::from_secs(1));
        }
        assert_eq!(seen.rows.len(), Seen::MAX_ROWS + 1);
        assert_eq!(content(&seen)[0].1[0], 5);
    }

    #[test]
    fn a_stack_is_logged_once_a_minute() {
        let mut seen = Seen::default();
        let (_, first) = stall(1, Instant::now());
        let (_, second) = stall(2, Instant::now());
        assert!(seen.take_log_turn(&first) && seen.take_log_turn(&second));
        assert!(!seen.take_log_turn(&first));
    }
}
