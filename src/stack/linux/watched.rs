//! Follows the CPU time of a thread: a timer that signals it, and what it has used.

#![allow(unsafe_code, reason = "timers")]

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::time::{Duration, Instant};

use super::clock::{self, Clock, Used};
use super::proc::thread_name;
use crate::stack::reason::Reason;
use crate::stack::types::{CpuSample, Stack};

/// A thread that is sampled.
pub(super) struct Watched {
    thread: u32,
    timer: Option<Timer>,
    name: Option<String>,
    /// True if the name was read after the thread had time to set it.
    is_named: bool,
    pub(super) used: Used,
    /// The part of that time which samples stand for.
    accounted: Duration,
    last: Option<(Stack, Option<&'static str>)>,
}

impl Watched {
    /// Begins to follow a thread, without a timer. What the thread has used before counts unless it was there from the start.
    pub(super) fn new(thread: u32, is_from_start: bool) -> Self {
        let clock = Clock::of_thread(thread);
        Watched {
            thread,
            timer: None,
            name: thread_name(thread),
            is_named: false,
            used: if is_from_start { Used::since_now(clock) } else { Used::in_all(clock) },
            accounted: Duration::ZERO,
            last: None,
        }
    }

    /// Returns true if the thread has not ended.
    pub(super) fn is_alive(&self) -> bool {
        Clock::of_thread(self.thread).now().is_some()
    }

    pub(super) fn has_timer(&self) -> bool {
        self.timer.is_some()
    }

    /// Has a timer signal the thread.
    pub(super) fn start_timer(
        &mut self,
        signal: libc::c_int,
        period: Duration,
        value: u64,
    ) -> Result<(), Reason> {
        // Begins at a random time of the thread's, so that threads that live shortly have their share of samples. That of a
        // thread which was found late may have passed.
        let used = self.used.last().saturating_sub(self.accounted);
        let first = clock::random_part_of(period).saturating_sub(used).max(Duration::from_nanos(1));
        let timer = Timer::new(signal, Some(self.thread), first, period, value)?;
        self.timer = Some(timer);
        Ok(())
    }

    pub(super) fn stop_timer(&mut self) {
        self.timer = None;
    }

    /// Returns a copy as a sample, for what the thread has used since the last one. `clock` is what its clock showed then.
    pub(super) fn sample(
        &mut self,
        clock: Duration,
        periods: u32,
        stack: Stack,
        task: Option<&'static str>,
    ) -> CpuSample {
        if !std::mem::replace(&mut self.is_named, true) {
            self.name = thread_name(self.thread).or(self.name.take());
        }
        self.last = Some((stack.clone(), task));
        let used = self.used.saw(clock);
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
        self.stop_timer();
        let (stack, task) = self.last.take()?;
        let rest = self.account(self.used.last(), 0, stack, task);
        (!rest.used.is_zero()).then_some(rest)
    }
}

/// A timer of the CPU time of a thread, or of the process. Dropping it deletes it.
pub(super) struct Timer(libc::c_int);

impl Timer {
    /// Starts one that signals the thread once it has used `first` from now on, and after each period from then on. Without
    /// a thread, it is the time of the process, and the kernel chooses the thread.
    pub(super) fn new(
        signal: libc::c_int,
        thread: Option<u32>,
        first: Duration,
        period: Duration,
        value: u64,
    ) -> Result<Self, Reason> {
        // SAFETY: a structure of integers and pointers, for all of which zeros are valid.
        let mut event = unsafe { MaybeUninit::<libc::sigevent>::zeroed().assume_init() };
        event.sigev_notify = if thread.is_some() { libc::SIGEV_THREAD_ID } else { libc::SIGEV_SIGNAL };
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = thread.unwrap_or_default().cast_signed();
        event.sigev_value = libc::sigval { sival_ptr: ptr::without_provenance_mut(value as usize) };
        let clock = thread.map_or(Clock::of_process(), Clock::of_thread);
        let mut id: libc::c_int = 0;
        // SAFETY: the kernel reads the event and writes the number.
        let result =
            unsafe { libc::syscall(libc::SYS_timer_create, clock.id(), &raw const event, &raw mut id) };
        clock::check(result, "timer_create")?;
        let timer = Timer(id);
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
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: it takes a number, which is that of a timer of this sampler.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.0) };
    }
}

/// Returns true if the signal of a timer of the process reaches the thread that uses the time, as from Linux 6.4 on. Before,
/// it reached any thread, and could disturb one that waits.
pub(super) fn is_signal_precise() -> bool {
    is_version_precise(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())
}

fn is_version_precise(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).is_some_and(|version| version >= (6, 4))
}

/// Finds out cheaply if threads may have started since the last call.
#[derive(Default)]
pub(super) struct Newest {
    file: Option<File>,
    id: Option<u32>,
    looked: Option<Instant>,
}

impl Newest {
    /// The longest time after which to look anyway: the number may mean nothing in a sandbox, and ended threads go unnoticed.
    const ANYWAY: Duration = Duration::from_millis(100);

    /// `are_same` finds out if this process has the same threads. It is called when some process of the system has started one.
    pub(super) fn may_have_changed(&mut self, are_same: impl FnOnce() -> bool) -> bool {
        let id = self.read();
        let is_new = id.is_none() || id != self.id;
        self.id = id;
        let is_old = self.looked.is_none_or(|looked| looked.elapsed() >= Self::ANYWAY);
        let may_have_changed = is_old || is_new && !are_same();
        if may_have_changed {
            self.looked = Some(Instant::now());
        }
        may_have_changed
    }

    /// Returns the id of the newest process or thread of the system.
    fn read(&mut self) -> Option<u32> {
        const FILE: &str = "/proc/loadavg";
        // It stays open, since opening it takes longer than reading it.
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(FILE).ok()?),
        };
        let mut text = [0; 128];
        let length = file.read_at(&mut text, 0).ok()?;
        let text = str::from_utf8(text.get(..length)?).ok()?;
        text.split_ascii_whitespace().next_back()?.parse().ok()
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::util::fuzz::{edited_text, run};

    #[test]
    fn any_release_has_a_version_or_none() {
        assert!(
            is_version_precise("6.4.0") && is_version_precise("10.0-rc1") && !is_version_precise("5.19.0-1")
        );
        let releases = ["6.12.57+deb13-cloud-amd64\n", "5.15.0-1084-aws\n", "6.4.0\n", "6.1.0-rc4-next"];
        run(4_000, 1 << 18, |u| Ok(is_version_precise(&edited_text(u, &releases)?)));
    }
}
