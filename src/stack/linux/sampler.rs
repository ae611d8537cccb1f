//! Samples the CPU time of all threads: a timer for each thread, whose signal has the thread copy its stack.
//!
//! The thread that takes the profile creates the timers, walks the copies and looks for threads that have started since. The
//! handler only copies, so that it needs little time and little stack.
//!
//! Signals say where a thread is, but not how much time it has used: the kernel looks at timers at its ticks alone, and
//! the last signal of a thread that ends may never come. The thread's clock says that. A sample stands for what its thread
//! has used since the sample before. The clock of the process says what threads have used that have ended meanwhile.

#![allow(unsafe_code, reason = "timers, signal handlers, and memory that a handler fills")]

use std::cell::UnsafeCell;
use std::collections::{HashMap, HashSet};
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use std::thread;
use std::time::{Duration, Instant};

use super::clock::{self, Clock, Used};
use super::copy::Copy;
use super::handler::{Handler, Info, Installed};
use super::memory::{self, KeepErrno};
use super::proc::{own_id, thread_count, threads};
use super::registers::Registers;
use super::watched::{Newest, Timer, Watched, is_signal_precise};
use crate::stack::reason::Reason;
use crate::stack::types::{CpuSample, CpuSummary};

const SIGNAL: libc::c_int = libc::SIGPROF;

static HANDLER: Handler = Handler::new(SIGNAL, handle);
/// The buffers for the copies of handlers while a profile is taken.
static TRAY: AtomicPtr<Tray> = AtomicPtr::new(ptr::null_mut());
/// The number of handlers that may be using the tray.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// Makes the timers of each profile differ.
static PROFILES: AtomicU32 = AtomicU32::new(0);
/// Makes the values of the sampler's timers differ from those of others.
const OF_THREAD: u64 = 0x6f74_6370 << 32;
/// The same for the timer of the process.
const OF_PROCESS: u64 = 0x6f74_6371 << 32;

/// The number of copies of which the time is kept.
const MAX_TIMES: usize = 4096;

/// Returns the name of the task that the calling thread polls. A signal handler calls it.
pub(crate) type TaskName = fn() -> Option<&'static str>;

/// Copies that wait to be walked.
struct Tray {
    number: u32,
    /// The thread that takes the profile, which is left out.
    sampler: u32,
    task: TaskName,
    entries: Box<[Entry]>,
    /// Periods for which there was no place, or no copy.
    lost: AtomicU64,
}

struct Entry {
    state: AtomicU32,
    content: UnsafeCell<Content>,
}

const FREE: u32 = 0;
const BEING_WRITTEN: u32 = 1;
const WRITTEN: u32 = 2;

struct Content {
    thread: u32,
    periods: u32,
    task: Option<&'static str>,
    /// The thread's CPU time when it was copied.
    used: Duration,
    /// The time that the handler took.
    took: Duration,
    copy: Box<Copy>,
}

// SAFETY: the content belongs to the handler that made the state `BEING_WRITTEN`, and to the sampler once it is `WRITTEN`.
unsafe impl Sync for Entry {}

impl Tray {
    fn new(task: TaskName, sampler: u32) -> Self {
        // Each running thread leaves one copy a period. The sampler comes about as often, but may wait for a CPU. The first
        // places are used first, so that the memory of the others is not touched while it keeps up.
        let cpus = thread::available_parallelism().map_or(4, usize::from);
        let entry = |_| Entry {
            state: AtomicU32::new(FREE),
            content: UnsafeCell::new(Content {
                thread: 0,
                periods: 0,
                task: None,
                used: Duration::ZERO,
                took: Duration::ZERO,
                copy: Copy::new(),
            }),
        };
        Tray {
            task,
            number: PROFILES.fetch_add(1, Relaxed),
            sampler,
            entries: (0..(16 * cpus).clamp(64, 256)).map(entry).collect(),
            lost: AtomicU64::new(0),
        }
    }

    /// Takes a copy of the calling thread's stack. Safe to call in a signal handler.
    fn put(&self, thread: u32, registers: Registers, periods: u32) {
        let start = Instant::now();
        let claim =
            |entry: &&Entry| entry.state.compare_exchange(FREE, BEING_WRITTEN, AcqRel, Relaxed).is_ok();
        let is_kept = self.entries.iter().find(claim).is_some_and(|entry| {
            // SAFETY: this handler has made it `BEING_WRITTEN`.
            let content = unsafe { &mut *entry.content.get() };
            content.thread = thread;
            content.periods = periods;
            content.task = (self.task)();
            content.used = Clock::of_this_thread().now().unwrap_or_default();
            let is_filled = content.copy.fill_from_own(registers).is_ok();
            content.took = start.elapsed();
            entry.state.store(if is_filled { WRITTEN } else { FREE }, Release);
            is_filled
        });
        if !is_kept {
            self.lost.fetch_add(periods.into(), Relaxed);
        }
    }

    /// Hands out what is written: a thread, periods, and the copy.
    fn take(&self, mut each: impl FnMut(&Content)) {
        for entry in self.entries.iter().filter(|entry| entry.state.load(Acquire) == WRITTEN) {
            // SAFETY: it is `WRITTEN`, and there is one sampler.
            each(unsafe { &*entry.content.get() });
            entry.state.store(FREE, Release);
        }
    }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let _errno = KeepErrno::new();
    INSIDE.fetch_add(1, SeqCst);
    // SAFETY: it came from a box, which is not freed while a handler is inside.
    let tray = unsafe { TRAY.load(SeqCst).as_ref() };
    // SAFETY: the kernel passes it to handlers that ask for it, as this one does.
    let timer = unsafe { Info::timer_of(info) }
        .filter(|(value, _)| matches!(value & (u64::MAX << 32), OF_THREAD | OF_PROCESS));
    let thread = own_id();
    if let (Some(tray), Some((value, missed))) = (tray, timer)
        && value as u32 == tray.number
        && thread != tray.sampler
    {
        // The timer of the process says where its threads are. Only those of the threads count periods.
        let periods = if value & (u64::MAX << 32) == OF_PROCESS { 0 } else { missed.saturating_add(1) };
        // SAFETY: `context` is this handler's argument.
        tray.put(thread, unsafe { Registers::of_signal(context) }, periods);
    }
    INSIDE.fetch_sub(1, SeqCst);
    if timer.is_none() {
        // SAFETY: these are a handler's arguments.
        unsafe { HANDLER.pass_on(signal, info, context) };
    }
}

/// Samples until it is dropped. One at a time.
pub(crate) struct Sampler {
    tray: *mut Tray,
    installed: Option<Installed>,
    watched: HashMap<u32, Watched>,
    period: Duration,
    process: Used,
    own: Used,
    own_id: u32,
    newest: Newest,
    /// Samples threads that are not known yet, while threads start and end.
    of_process: Option<Timer>,
    may_sample_process: bool,
    /// The CPU time that threads had used when they ended, as far as it is known.
    of_ended: Duration,
    /// How long the first copies took.
    took: Vec<Duration>,
    unsampled: Option<Reason>,
}

impl Sampler {
    /// Starts to sample all threads but the calling one.
    pub(crate) fn start(period: Duration, task: TaskName) -> Result<Self, Reason> {
        // Handlers could not say so.
        memory::copy((&raw const TRAY).addr(), &mut [0; 8])
            .map_err(|errno| Reason::Refused { call: "process_vm_readv", errno })?;
        let own_id = own_id();
        let tray = Box::into_raw(Box::new(Tray::new(task, own_id)));
        TRAY.store(tray, SeqCst);
        let mut sampler = Sampler {
            tray,
            installed: None,
            watched: HashMap::new(),
            period,
            process: Used::since_now(Clock::of_process()),
            own: Used::since_now(Clock::of_thread(own_id)),
            own_id,
            newest: Newest::default(),
            of_process: None,
            may_sample_process: is_signal_precise(),
            of_ended: Duration::ZERO,
            took: Vec::new(),
            unsampled: None,
        };
        sampler.installed = Some(HANDLER.install()?);
        sampler.newest.may_have_changed(|| false);
        sampler.watch(&threads().into_iter().collect(), true);
        match sampler.unsampled {
            Some(reason) if !sampler.watched.values().any(Watched::has_timer) => Err(reason),
            _ => Ok(sampler),
        }
    }

    /// Hands out the samples since the last call, and looks for threads that have started or ended. Returns how long to
    /// wait before the next call.
    pub(crate) fn look(&mut self, mut each: impl FnMut(CpuSample)) -> Duration {
        // Two periods: waking up is most of what the sampler costs, some 100 us beside other programs.
        const USUALLY: Duration = Duration::from_millis(20);
        const WHILE_THREADS_COME: Duration = Duration::from_millis(5);
        // Copies have to be walked before the places for them run out.
        const MAX_PAUSE: Duration = Duration::from_millis(30);
        // Many threads take long to look at, which must not become the main work of the process.
        const PAUSE_PER_WORK: u32 = 50;
        let (watched, unsampled) = (&self.watched, self.unsampled);
        let are_same = || {
            thread_count() == Some(watched.len() + 1)
                && watched
                    .values()
                    .all(|thread| (thread.has_timer() || unsampled.is_some()) && thread.is_alive())
        };
        if self.newest.may_have_changed(are_same) {
            let start = Instant::now();
            self.compare(&mut each);
            (start.elapsed() * PAUSE_PER_WORK).clamp(WHILE_THREADS_COME, MAX_PAUSE)
        } else {
            self.take(&mut each);
            USUALLY
        }
    }

    /// Compares the threads that are watched with those that there are.
    ///
    /// A thread that has ended takes its clock along, so that its own time is known only up to the last call. The time of the
    /// process includes the rest. It is what the process has used less what is known of every thread.
    fn compare(&mut self, each: &mut impl FnMut(CpuSample)) {
        // First, so that what threads use meanwhile is missing here rather than counted for those that have ended.
        let used = self.process.now();
        let threads = threads().into_iter().collect();
        let have_come = self.watch(&threads, false);
        // A thread that is not listed leaves no copy after this.
        self.take(each);
        let mut known = self.own.now() + self.of_ended;
        let mut ended = Vec::new();
        for (_, watched) in self.watched.extract_if(|thread, _| !threads.contains(thread)) {
            known += watched.used.last();
            ended.push(watched);
        }
        for watched in self.watched.values_mut() {
            known += watched.used.now();
        }
        self.sample_process(have_come || !ended.is_empty());
        self.end_threads(ended, used.saturating_sub(known), each);
    }

    /// Shares out the time that is missing among threads that have ended. None of them can have used more than has passed since
    /// its clock was read. What is left over belongs to threads that were never seen.
    fn end_threads(&mut self, ended: Vec<Watched>, mut missing: Duration, each: &mut impl FnMut(CpuSample)) {
        let mut left = u32::try_from(ended.len()).unwrap_or(u32::MAX);
        for mut watched in ended {
            let share = (missing / left.max(1)).min(watched.used.age());
            watched.used.add(share);
            missing = missing.saturating_sub(share);
            left = left.saturating_sub(1);
            self.of_ended += watched.used.last();
            watched.settle().into_iter().for_each(&mut *each);
        }
        self.of_ended += missing;
    }

    /// Starts or ends the timer of the process. A program whose threads stay gets signals of their own timers only.
    fn sample_process(&mut self, is_wanted: bool) {
        if !is_wanted || !self.may_sample_process {
            self.of_process = None;
        } else if self.of_process.is_none() {
            let first = clock::random_part_of(self.period);
            let value = OF_PROCESS | u64::from(self.number());
            // Without it, threads that end before they are found have no stack.
            self.of_process = Timer::new(SIGNAL, None, first, self.period, value).ok();
        }
    }

    /// Follows these threads, and returns true if some of them are new.
    fn watch(&mut self, threads: &HashSet<u32>, is_first: bool) -> bool {
        let value = OF_THREAD | u64::from(self.number());
        let before = self.watched.len();
        let mut is_refused = false;
        for thread in threads.iter().filter(|thread| **thread != self.own_id) {
            let watched = self.watched.entry(*thread).or_insert_with(|| Watched::new(*thread, is_first));
            if !watched.has_timer() && !is_refused {
                match watched.start_timer(SIGNAL, self.period, value) {
                    Ok(()) | Err(Reason::Ended) => {}
                    Err(reason) => (self.unsampled, is_refused) = (Some(reason), true),
                }
            }
        }
        self.watched.len() > before
    }

    fn take(&mut self, each: &mut impl FnMut(CpuSample)) {
        // SAFETY: it came from a box, and this thread is the only one that frees it.
        let Some(tray) = (unsafe { self.tray.as_ref() }) else { return };
        tray.take(|content| {
            if self.took.len() < MAX_TIMES {
                self.took.push(content.took);
            }
            let stack = content.copy.stack().unwrap_or_default();
            // It may have started since the last look, and may have ended.
            let new = || Watched::new(content.thread, false);
            let watched = self.watched.entry(content.thread).or_insert_with(new);
            each(watched.sample(content.used, content.periods, stack, content.task));
        });
    }

    /// Ends the sampling, hands out the last samples, and returns what there was to sample.
    pub(crate) fn stop(mut self, mut each: impl FnMut(CpuSample)) -> CpuSummary {
        self.compare(&mut each);
        let is_quiet = self.end();
        self.take(&mut each);
        for (_, mut watched) in self.watched.drain() {
            watched.used.now();
            watched.settle().into_iter().for_each(&mut each);
        }
        let (used, own) = (self.process.now(), self.own.now());
        // SAFETY: as in `take`.
        let lost = unsafe { self.tray.as_ref() }.map_or(0, |tray| tray.lost.load(Acquire));
        if !is_quiet {
            // Some handler still waits for a CPU: it keeps the memory.
            self.tray = ptr::null_mut();
        }
        self.took.sort_unstable();
        let median = self.took.get(self.took.len() / 2).copied();
        let copying = self.took.first().copied().zip(median);
        CpuSummary { used: used.saturating_sub(own), lost, own, copying, unsampled: self.unsampled }
    }

    fn number(&self) -> u32 {
        // SAFETY: as in `take`.
        unsafe { self.tray.as_ref() }.map_or(0, |tray| tray.number)
    }

    /// Deletes the timers, restores the handler and waits for handlers that run. Returns true if none is left.
    fn end(&mut self) -> bool {
        // Their samples are still to be handed out, with what is known of them.
        for watched in self.watched.values_mut() {
            watched.stop_timer();
        }
        self.of_process = None;
        self.installed = None;
        TRAY.store(ptr::null_mut(), SeqCst);
        let start = Instant::now();
        while INSIDE.load(SeqCst) != 0 {
            if start.elapsed() > Duration::from_secs(1) {
                return false;
            }
            thread::sleep(Duration::from_micros(50));
        }
        true
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        if self.end() && !self.tray.is_null() {
            // SAFETY: it came from a box, no handler is inside, and none finds it any more.
            drop(unsafe { Box::from_raw(self.tray) });
        }
    }
}
