//! Decides when a worker counts as stalled, and why. It knows nothing but observations; time comes from outside too.
//! `tests/tokio_stall_rule.rs` includes this file, which therefore uses nothing of the crate but `observe`.
//!
//! A worker counts as stalled only on evidence. Tokio publishes what a worker does when it parks and at every 61st
//! poll, so that silence alone proves little. Evidence is:
//! - *blocked*: the worker is awake, and its thread has used no CPU time for the threshold and waits;
//! - *starved*: likewise, but the thread could run and was not given a CPU;
//! - *running*: one poll has lasted for the threshold, as a named task, Tokio's hooks or Tokio's count of polls
//!   show; or the worker has used more CPU time in silence than 61 polls take that are not slow.
//!
//! A thread that waits and runs by turns, longer than 61 such polls take, is *blocked* or *running*, by what it did more.

use std::time::Duration;

use super::observe::{Inspect, Observation, Poll, State, ThreadTime};

/// Why a worker makes no progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its thread waits in a call.
    Blocked,
    /// It runs one poll.
    Running,
    /// Its thread is not given a CPU.
    Starved,
}

impl Cause {
    pub(crate) const ALL: [Cause; 3] = [Cause::Blocked, Cause::Running, Cause::Starved];

    /// Returns the value of `tokio.stall.cause`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cause::Blocked => "blocked",
            Cause::Running => "running",
            Cause::Starved => "starved",
        }
    }
}

/// The watcher's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Config {
    /// The time between two looks.
    pub(super) interval: Duration,
    /// The time without progress after which a worker counts as stalled.
    pub(super) threshold: Duration,
    /// The time after which a poll counts as slow.
    pub(super) slow_poll: Duration,
}

impl Config {
    /// Tokio's default `event_interval`.
    const POLLS_PER_PUBLICATION: u32 = 61;

    /// The time between two looks while a worker is in doubt.
    pub(super) fn interval_in_doubt(&self) -> Duration {
        (self.interval / 10).max(Duration::from_millis(1))
    }

    /// Returns the longest silence of a worker that runs polls which are not slow. It includes five percent for Tokio's
    /// own work.
    pub(super) fn silence(&self) -> Duration {
        let polls = self.slow_poll.saturating_mul(Self::POLLS_PER_PUBLICATION);
        polls.saturating_add(polls / 20).max(self.threshold)
    }

    /// Returns the time for which a thread that runs the worker cannot rest: twice the longest poll that is not slow.
    fn rest(&self) -> Duration {
        self.slow_poll.saturating_mul(2)
    }
}

/// A look at a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) now: Duration,
    /// True if the watcher looked when it meant to. A late watcher was stopped or starved itself, and so may have been
    /// the worker.
    pub(super) on_time: bool,
}

/// Counts the states of a thread at the looks that asked for it.
#[derive(Clone, Copy, Debug, Default)]
struct States {
    looks: u32,
    runnable: u32,
}

impl States {
    /// Fewer looks do not show what a thread does most.
    const ENOUGH: u32 = 5;

    fn count(&mut self, state: State) {
        self.looks += 1;
        self.runnable += u32::from(state == State::Runnable);
    }

    fn share_of_runnable(&self) -> Option<f64> {
        (self.looks >= Self::ENOUGH).then(|| f64::from(self.runnable) / f64::from(self.looks))
    }
}

/// The stretch of time from the first look that found the worker awake without a sign of progress since.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Duration,
    thread: Option<ThreadTime>,
    /// The last look before which the watcher was late.
    late: Duration,
    /// The moment since which the thread's CPU time has stood still, and its state meanwhile.
    still: Duration,
    cpu: Duration,
    state: Option<State>,
    runnable: Option<Duration>,
    /// The first reading of the thread's wait for a CPU: the moment and the wait.
    delay: Option<(Duration, Duration)>,
    is_suspicious: bool,
    states: States,
}

impl Window {
    fn new(now: Duration, thread: Option<ThreadTime>) -> Self {
        let cpu = thread.map(|thread| thread.cpu).unwrap_or_default();
        let (still, late) = (now, now);
        let (state, runnable, delay) = (None, None, None);
        let (is_suspicious, states) = (false, States::default());
        Window { since: now, thread, late, still, cpu, state, runnable, delay, is_suspicious, states }
    }

    /// The CPU time that the thread has used in it.
    fn used(&self) -> Option<Duration> {
        self.thread.map(|thread| self.cpu.saturating_sub(thread.cpu))
    }
}

#[derive(Clone, Copy, Debug)]
struct Stall {
    cause: Cause,
    since: Duration,
    /// The thread's CPU time when the stall was noticed.
    cpu: Option<Duration>,
    poll: Option<Poll>,
}

/// A worker, as far as its stalls go.
#[derive(Debug, Default)]
pub(super) struct Worker {
    last: Option<Observation>,
    looked: Duration,
    /// The thread at the last look that found new busy time.
    thread: Option<ThreadTime>,
    poll: Option<Poll>,
    window: Option<Window>,
    stall: Option<Stall>,
    stalls: [u64; 3],
    times: [Duration; 3],
}

impl Worker {
    /// Takes in one look. Returns true if a stall has begun.
    pub(super) fn look(
        &mut self,
        look: Look,
        seen: Observation,
        config: &Config,
        thread: &mut dyn Inspect,
    ) -> bool {
        let now = look.now;
        // A late watcher does not know how long a stall that has ended went on.
        let end = now.min(self.looked.saturating_add(config.interval));
        self.looked = now;
        let last = self.last.replace(seen);
        let published = last.is_none_or(|last| last.published() != seen.published());
        if seen.is_asleep() && !published {
            return false;
        }
        // Of a worker that sleeps it serves only to compare with Tokio's count of polls.
        let time = if seen.is_asleep() && seen.polls.is_none() { None } else { thread.time() };
        let poll = if seen.is_asleep() { None } else { thread.poll() };
        let mut counted = false;
        if published {
            counted = self.stall.is_none() && self.count_past_stall(last, seen, time, config);
            self.make_progress(end);
        } else if seen.probed > self.window.map(|window| window.since).unwrap_or_default() {
            self.make_progress(seen.probed);
        } else if poll != self.poll {
            self.make_progress(end);
        }
        self.poll = poll;
        if seen.is_asleep() || last.is_none_or(|last| last.busy != seen.busy) {
            self.thread = time;
        }
        if seen.is_asleep() {
            return counted;
        }
        counted | self.stay_awake(look, end, time, config, thread)
    }

    /// The worker is awake and shows no progress.
    fn stay_awake(
        &mut self,
        look: Look,
        end: Duration,
        time: Option<ThreadTime>,
        config: &Config,
        thread: &mut dyn Inspect,
    ) -> bool {
        let now = look.now;
        if let Some(stall) = self.stall {
            let ran = time.zip(stall.cpu).map(|(time, cpu)| time.cpu.saturating_sub(cpu));
            let goes_on = stall.cause == Cause::Running || stall.poll.is_some();
            if !goes_on && ran.is_some_and(|ran| ran >= config.slow_poll) {
                // Its thread runs again, be it the same poll: it is not known to be stuck any more.
                self.make_progress(end);
            } else {
                return false;
            }
        }
        let mut window = match self.window.take() {
            Some(window) if window.thread.map(|thread| thread.id) == time.map(|time| time.id) => window,
            _ => Window::new(now, time),
        };
        if !look.on_time {
            (window.late, window.delay) = (now, None);
        }
        let ran = time.is_some_and(|time| time.cpu != window.cpu);
        if ran {
            window.cpu = time.map(|time| time.cpu).unwrap_or_default();
            (window.still, window.state, window.runnable) = (now, None, None);
        }
        let stands_still = time.is_some() && !ran && now > window.still;
        let silent = now.saturating_sub(window.since);
        let used = window.used();
        let polls_long = self.poll.is_some() && silent >= config.threshold / 2;
        let suspicious = stands_still || used.is_some_and(|used| used >= config.silence() / 2) || polls_long;
        // The threads that the worker could have moved to show themselves between two looks that follow each other soon.
        let is_shown = window.is_suspicious;
        window.is_suspicious |= suspicious;
        if window.is_suspicious && time.is_some() {
            let state = thread.state();
            window.states.count(state);
            if stands_still {
                window.state = Some(state);
                window.runnable = (state == State::Runnable).then(|| window.runnable.unwrap_or(now));
            }
        }
        if window.is_suspicious {
            thread.look_at_others(now, (!ran).then_some(window.still), config.rest());
        }
        if window.delay.is_none() && silent >= config.threshold {
            window.delay = thread.run_delay().map(|delay| (now, delay));
        }
        let found = self.judge(now, &window, config, thread).filter(|_| is_shown || time.is_none());
        self.window = Some(window);
        self.stall = found.map(|(cause, since)| Stall {
            cause,
            since,
            cpu: time.map(|time| time.cpu),
            poll: self.poll,
        });
        self.stall.is_some()
    }

    /// Returns the cause of a stall and its beginning, if there is evidence of one.
    fn judge(
        &self,
        now: Duration,
        window: &Window,
        config: &Config,
        thread: &mut dyn Inspect,
    ) -> Option<(Cause, Duration)> {
        let lasts = |since: Duration, limit: Duration| now.saturating_sub(since) >= limit;
        let reliable = window.since.max(window.late);
        let evidence = match (window.state, window.used()) {
            (Some(State::Waiting), _) if lasts(window.still, config.threshold) => {
                Some((Cause::Blocked, window.still))
            }
            (Some(State::Runnable), _)
                if window.runnable.is_some_and(|since| lasts(since, config.threshold)) =>
            {
                Some((Cause::Starved, window.runnable.unwrap_or(window.still)))
            }
            (_, Some(used)) if used >= config.silence() => Some((Cause::Running, window.since)),
            (_, Some(used)) if Self::was_active(now, window, thread, config.silence()) => {
                let mostly_ran = used * 2 >= now.saturating_sub(window.since);
                Some((if mostly_ran { Cause::Running } else { Cause::Blocked }, window.since))
            }
            _ if self.poll.is_some() && lasts(reliable, config.threshold) => {
                Self::cause_of_poll(now, window).map(|cause| (cause, reliable))
            }
            _ => None,
        };
        let silent = lasts(reliable, config.silence());
        let silent_for_long = lasts(reliable, config.silence().saturating_mul(4));
        match evidence {
            // The thread is known to be stuck. The worker may have moved to another one, which may be short of CPU time:
            // it gets four times as long.
            Some(evidence) => (thread.is_unmoved() || silent_for_long).then_some(evidence),
            None if !silent => None,
            // The system does not report what the thread does.
            None if window.state == Some(State::Unknown) => Some((Cause::Blocked, window.still)),
            None if window.thread.is_none() && thread.state() == State::Waiting => {
                Some((Cause::Blocked, reliable))
            }
            // It is not known either whether the thread was given a CPU.
            None if window.thread.is_none() && silent_for_long => Some((Cause::Running, reliable)),
            None => None,
        }
    }

    /// Returns what the thread did most during one poll, once that is known.
    fn cause_of_poll(now: Duration, window: &Window) -> Option<Cause> {
        let passed = now.saturating_sub(window.since);
        let Some(used) = window.used() else { return Some(Cause::Running) };
        if used * 2 >= passed {
            return Some(Cause::Running);
        }
        // The system adds a wait for a CPU up when it is over. So the looks are a sample of what the thread does.
        let runnable = passed.mul_f64(window.states.share_of_runnable()?);
        let waited = passed.saturating_sub(runnable);
        let starved = runnable.saturating_sub(used);
        Some(match used.max(waited).max(starved) {
            most if most == waited => Cause::Blocked,
            most if most == starved => Cause::Starved,
            _ => Cause::Running,
        })
    }

    /// Returns true if the thread has run, or waited for anything but a CPU, for so long.
    fn was_active(now: Duration, window: &Window, thread: &mut dyn Inspect, time: Duration) -> bool {
        // The system adds a wait for a CPU up when it is over.
        let Some((since, before)) = window.delay.filter(|_| window.state.is_none()) else { return false };
        let passed = now.saturating_sub(since);
        let delayed = |delay: Duration| delay.saturating_sub(before);
        passed >= time
            && thread.run_delay().is_some_and(|delay| passed.saturating_sub(delayed(delay)) >= time)
    }

    /// Counts a stall that is known only now that it is over: so few polls, and so much CPU time, that one of them must
    /// have lasted for the threshold.
    fn count_past_stall(
        &mut self,
        last: Option<Observation>,
        seen: Observation,
        time: Option<ThreadTime>,
        config: &Config,
    ) -> bool {
        let known = || {
            let (last, before, time) = (last?, self.thread?, time?);
            let polls = u32::try_from(seen.polls?.saturating_sub(last.polls?)).ok()?.max(1);
            let ran = (before.id == time.id).then(|| time.cpu.saturating_sub(before.cpu))?;
            let longest = seen.busy.saturating_sub(last.busy).min(ran) / polls;
            (longest >= config.threshold).then_some(longest)
        };
        let known = known();
        if let Some(longest) = known {
            self.add(Cause::Running, longest);
        }
        known.is_some()
    }

    /// Ends the present stall, if there is one, and begins to watch anew.
    fn make_progress(&mut self, when: Duration) {
        if let Some(stall) = self.stall.take() {
            self.add(stall.cause, when.saturating_sub(stall.since));
        }
        self.window = None;
    }

    fn add(&mut self, cause: Cause, time: Duration) {
        let [stalls, times] = [cause as usize; 2];
        if let (Some(stalls), Some(times)) = (self.stalls.get_mut(stalls), self.times.get_mut(times)) {
            *stalls += 1;
            *times += time;
        }
    }

    /// Notes that the worker does not exist at the moment, such as that of a current-thread runtime that no thread
    /// drives. A stall that was thought to go on never was.
    pub(super) fn mark_absent(&mut self) {
        (self.stall, self.window) = (None, None);
    }

    /// Returns true if the worker is to be looked at again soon.
    pub(super) fn is_in_doubt(&self, config: &Config) -> bool {
        self.stall.is_none()
            && self.window.is_some_and(|window| {
                window.is_suspicious || window.state.is_some() || config.threshold < config.interval
            })
    }

    /// Takes in that a reader finds the worker as the last look left it: a present stall has gone on until now.
    pub(super) fn read(&mut self, now: Duration, seen: Observation) {
        if self.stall.is_some() && self.last == Some(seen) {
            self.looked = self.looked.max(now);
        }
    }

    /// Returns how many stalls of a cause there were, the present one included, and how long they lasted until the last
    /// look or reading.
    pub(super) fn total(&self, cause: Cause) -> (u64, Duration) {
        let count = self.stalls.get(cause as usize).copied().unwrap_or_default();
        let time = self.times.get(cause as usize).copied().unwrap_or_default();
        match self.stall {
            Some(stall) if stall.cause == cause => {
                (count + 1, time + self.looked.saturating_sub(stall.since))
            }
            _ => (count, time),
        }
    }

    /// Returns the cause and the beginning of the present stall.
    pub(super) fn present(&self) -> Option<(Cause, Duration)> {
        self.stall.map(|stall| (stall.cause, stall.since))
    }
}
