//! Samples the CPU time of all threads: a timer for each thread, whose signal has the thread copy its stack.
//!
//! The thread that takes the profile creates the timers, walks the copies and looks for threads that have started since. The
//! handler only copies, so that it needs little time and little stack.
//!
//! Signals say where a thread is, but not how much time it has used: the kernel looks at timers at its ticks alone, and
//! the last signal of a thread that ends may never come. The thread's clock says that. A sample stands for what its thread
//! has used since the sample before.

#![allow(unsafe_code, reason = "timers, signal handlers, and memory that a handler fills")]

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use std::thread;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::copy::Copy;
use super::handler::{Handler, Info, Installed};
use super::memory::{self, KeepErrno};
use super::proc::{own_id, threads};
use super::registers::Registers;
use super::watched::{Newest, Watched};
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
const MARK: u64 = 0x6f74_6370 << 32;

/// Returns the name of the task that the calling thread polls. A signal handler calls it.
pub(crate) type TaskName = fn() -> Option<&'static str>;

/// Copies that wait to be walked.
struct Tray {
    mark: u64,
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
    copy: Box<Copy>,
}

// SAFETY: the content belongs to the handler that made the state `BEING_WRITTEN`, and to the sampler once it is `WRITTEN`.
unsafe impl Sync for Entry {}

impl Tray {
    fn new(task: TaskName) -> Self {
        // Each running thread leaves one copy a period, and the sampler comes about as often.
        let cpus = thread::available_parallelism().map_or(4, usize::from);
        let entry = |_| Entry {
            state: AtomicU32::new(FREE),
            content: UnsafeCell::new(Content {
                thread: 0,
                periods: 0,
                task: None,
                used: Duration::ZERO,
                copy: Copy::new(),
            }),
        };
        Tray {
            task,
            mark: MARK | u64::from(PROFILES.fetch_add(1, Relaxed)),
            entries: (0..(4 * cpus).clamp(16, 256)).map(entry).collect(),
            lost: AtomicU64::new(0),
        }
    }

    /// Takes a copy of the calling thread's stack. Safe to call in a signal handler.
    fn put(&self, registers: Registers, periods: u32) {
        let claim =
            |entry: &&Entry| entry.state.compare_exchange(FREE, BEING_WRITTEN, AcqRel, Relaxed).is_ok();
        let is_kept = self.entries.iter().find(claim).is_some_and(|entry| {
            // SAFETY: this handler has made it `BEING_WRITTEN`.
            let content = unsafe { &mut *entry.content.get() };
            content.thread = own_id();
            content.periods = periods;
            content.task = (self.task)();
            content.used = Clock::of_this_thread().now().unwrap_or_default();
            let is_filled = content.copy.fill(registers).is_ok();
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
    let timer = unsafe { Info::timer_of(info) }.filter(|(value, _)| value & (u64::MAX << 32) == MARK);
    if let (Some(tray), Some((value, missed))) = (tray, timer)
        && value == tray.mark
    {
        // SAFETY: `context` is this handler's argument.
        tray.put(unsafe { Registers::of_signal(context) }, missed.saturating_add(1));
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
    process: Clock,
    process_before: Duration,
    own: u32,
    own_before: Duration,
    newest: Newest,
    is_first_look: bool,
    unsampled: Option<Reason>,
}

impl Sampler {
    /// Starts to sample all threads but the calling one.
    pub(crate) fn start(period: Duration, task: TaskName) -> Result<Self, Reason> {
        // Handlers could not say so.
        memory::copy((&raw const TRAY).addr(), &mut [0; 8])
            .map_err(|errno| Reason::Refused { call: "process_vm_readv", errno })?;
        let own = own_id();
        let process = Clock::of_process();
        let tray = Box::into_raw(Box::new(Tray::new(task)));
        TRAY.store(tray, SeqCst);
        let mut sampler = Sampler {
            tray,
            installed: None,
            watched: HashMap::new(),
            period,
            process,
            process_before: process.now().unwrap_or_default(),
            own,
            own_before: Clock::of_thread(own).now().unwrap_or_default(),
            newest: Newest::default(),
            is_first_look: true,
            unsampled: None,
        };
        sampler.installed = Some(HANDLER.install()?);
        sampler.look(drop);
        match sampler.unsampled {
            Some(reason) if sampler.watched.is_empty() => Err(reason),
            _ => Ok(sampler),
        }
    }

    /// Looks for threads that have started or ended. Returns how long to wait before the next look.
    pub(crate) fn look(&mut self, mut each: impl FnMut(CpuSample)) -> Duration {
        const USUALLY: Duration = Duration::from_millis(10);
        const WHILE_THREADS_COME: Duration = Duration::from_millis(5);
        let is_first = std::mem::take(&mut self.is_first_look);
        let have_come = self.newest.may_have_changed();
        if have_come || is_first {
            let threads = threads();
            self.watch(&threads, is_first);
            for (_, watched) in self.watched.extract_if(|thread, _| !threads.contains(thread)) {
                watched.settle().into_iter().for_each(&mut each);
            }
        }
        for (thread, watched) in self.watched.iter_mut().filter(|(_, watched)| watched.is_young()) {
            watched.last_used = Clock::of_thread(*thread).now().unwrap_or(watched.last_used);
        }
        if have_come { WHILE_THREADS_COME } else { USUALLY }
    }

    fn watch(&mut self, threads: &[u32], is_first: bool) {
        for thread in threads.iter().filter(|thread| **thread != self.own) {
            if !self.watched.contains_key(thread) {
                match Watched::new(SIGNAL, *thread, self.period, self.mark(), is_first) {
                    Ok(watched) => drop(self.watched.insert(*thread, watched)),
                    Err(Reason::Ended) => {}
                    Err(reason) => self.unsampled = Some(reason),
                }
            }
        }
    }

    /// Hands out the samples since the last call.
    pub(crate) fn take(&mut self, mut each: impl FnMut(CpuSample)) {
        // SAFETY: it came from a box, and this thread is the only one that frees it.
        let Some(tray) = (unsafe { self.tray.as_ref() }) else { return };
        tray.take(|content| {
            let stack = content.copy.stack().unwrap_or_default();
            let sample = match self.watched.get_mut(&content.thread) {
                Some(watched) => watched.sample(content.used, content.periods, stack, content.task),
                // It has ended since.
                None => CpuSample {
                    stack,
                    periods: content.periods,
                    used: self.period * content.periods,
                    thread_name: None,
                    task: content.task,
                },
            };
            each(sample);
        });
    }

    /// Ends the sampling, hands out the last samples, and returns what there was to sample.
    pub(crate) fn stop(mut self, mut each: impl FnMut(CpuSample)) -> CpuSummary {
        let is_quiet = self.end();
        self.take(&mut each);
        for (thread, mut watched) in self.watched.drain() {
            watched.last_used = Clock::of_thread(thread).now().unwrap_or(watched.last_used);
            watched.settle().into_iter().for_each(&mut each);
        }
        let used = self.process.now().unwrap_or_default().saturating_sub(self.process_before);
        let own = Clock::of_thread(self.own).now().unwrap_or_default().saturating_sub(self.own_before);
        // SAFETY: as in `take`.
        let lost = unsafe { self.tray.as_ref() }.map_or(0, |tray| tray.lost.load(Acquire));
        if !is_quiet {
            // Some handler still waits for a CPU: it keeps the memory.
            self.tray = ptr::null_mut();
        }
        CpuSummary { used: used.saturating_sub(own), lost, unsampled: self.unsampled }
    }

    fn mark(&self) -> u64 {
        // SAFETY: as in `take`.
        unsafe { self.tray.as_ref() }.map_or(0, |tray| tray.mark)
    }

    /// Deletes the timers, restores the handler and waits for handlers that run. Returns true if none is left.
    fn end(&mut self) -> bool {
        // Their samples are still to be handed out, with what is known of them.
        for watched in self.watched.values_mut() {
            watched.timer.delete();
        }
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
