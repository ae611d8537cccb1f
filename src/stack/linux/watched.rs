//! Follows the CPU time of a thread: a timer that signals it, and what it has used.

#![allow(unsafe_code, reason = "timers")]

use std::mem::MaybeUninit;
use std::ptr;
use std::time::{Duration, Instant};

use super::clock::{self, Clock};
use super::proc::thread_name;
use crate::stack::reason::Reason;
use crate::stack::types::{CpuSample, Stack};

/// A thread that is sampled.
pub(super) struct Watched {
    thread: u32,
    pub(super) timer: Timer,
    name: Option<String>,
    /// True if the name was read after the thread had time to set it.
    is_named: bool,
    found: Instant,
    /// The thread's CPU time at its last sample.
    accounted: Duration,
    /// The thread's CPU time at the last check.
    pub(super) last_used: Duration,
    last: Option<(Stack, Option<&'static str>)>,
}

impl Watched {
    /// Starts a timer for a thread. What the thread has used before counts unless it was there from the start.
    pub(super) fn new(
        signal: libc::c_int,
        thread: u32,
        period: Duration,
        mark: u64,
        is_from_start: bool,
    ) -> Result<Self, Reason> {
        let clock = Clock::of_thread(thread);
        let timer = Timer::new(signal, thread, clock, period, mark)?;
        let used = clock.now().unwrap_or_default();
        Ok(Watched {
            thread,
            timer,
            name: thread_name(thread),
            is_named: false,
            found: Instant::now(),
            accounted: if is_from_start { used } else { Duration::ZERO },
            last_used: used,
            last: None,
        })
    }

    /// The CPU time after the last check and before the end matters for short-lived threads.
    pub(super) fn is_young(&self) -> bool {
        const YOUNG: Duration = Duration::from_secs(1);
        self.found.elapsed() < YOUNG
    }

    /// Returns a copy as a sample, for what the thread has used since the last one.
    pub(super) fn sample(
        &mut self,
        used: Duration,
        periods: u32,
        stack: Stack,
        task: Option<&'static str>,
    ) -> CpuSample {
        if !std::mem::replace(&mut self.is_named, true) {
            self.name = thread_name(self.thread).or(self.name.take());
        }
        self.last = Some((stack.clone(), task));
        self.account(used, periods, stack, task)
    }

    fn account(
        &mut self,
        used: Duration,
        periods: u32,
        stack: Stack,
        task: Option<&'static str>,
    ) -> CpuSample {
        let since = used.saturating_sub(self.accounted);
        self.accounted = self.accounted.max(used);
        CpuSample { stack, periods, used: since, thread_name: self.name.clone(), task }
    }

    /// Accounts for what the thread is known to have used since its last sample.
    pub(super) fn settle(mut self) -> Option<CpuSample> {
        self.timer.delete();
        let (stack, task) = self.last.take()?;
        let rest = self.account(self.last_used, 0, stack, task);
        (!rest.used.is_zero()).then_some(rest)
    }
}

/// A timer of a thread's CPU time.
pub(super) struct Timer(Option<libc::c_int>);

impl Timer {
    fn new(
        signal: libc::c_int,
        thread: u32,
        clock: Clock,
        period: Duration,
        mark: u64,
    ) -> Result<Self, Reason> {
        // SAFETY: a structure of integers and pointers, for all of which zeros are valid.
        let mut event = unsafe { MaybeUninit::<libc::sigevent>::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = thread.cast_signed();
        event.sigev_value = libc::sigval { sival_ptr: ptr::without_provenance_mut(mark as usize) };
        let mut id: libc::c_int = 0;
        // SAFETY: the kernel reads the event and writes the number.
        let result =
            unsafe { libc::syscall(libc::SYS_timer_create, clock.id(), &raw const event, &raw mut id) };
        clock::check(result, "timer_create")?;
        let timer = Timer(Some(id));
        // Begins at a random time, so that threads that live shortly have their share of samples.
        let first = clock::random_part_of(period);
        let setting =
            libc::itimerspec { it_interval: clock::timespec(period), it_value: clock::timespec(first) };
        // SAFETY: the kernel reads the setting.
        let result = unsafe {
            libc::syscall(
                libc::SYS_timer_settime,
                id,
                0,
                &raw const setting,
                ptr::null_mut::<libc::itimerspec>(),
            )
        };
        clock::check(result, "timer_settime")?;
        Ok(timer)
    }

    pub(super) fn delete(&mut self) {
        if let Some(id) = self.0.take() {
            // SAFETY: it takes a number, which is that of a timer of this sampler.
            unsafe { libc::syscall(libc::SYS_timer_delete, id) };
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.delete();
    }
}

/// Says cheaply whether threads may have started since the last call.
#[derive(Default)]
pub(super) struct Newest {
    id: Option<String>,
    looked: Option<Instant>,
}

impl Newest {
    /// The longest time after which to look anyway: the number may mean nothing in a sandbox, and ended threads go unnoticed.
    const ANYWAY: Duration = Duration::from_millis(100);

    pub(super) fn may_have_changed(&mut self) -> bool {
        // The last word is the id of the newest process or thread.
        let text = std::fs::read_to_string("/proc/loadavg").ok();
        let id = text.as_deref().and_then(|text| text.split_ascii_whitespace().last()).map(str::to_owned);
        let is_old = self.looked.is_none_or(|looked| looked.elapsed() >= Self::ANYWAY);
        if is_old || id.is_none() || id != self.id {
            self.id = id;
            self.looked = Some(Instant::now());
            return true;
        }
        false
    }
}
