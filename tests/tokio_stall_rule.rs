//! The rule that decides when a worker is stalled, driven by scripted schedules against an oracle that knows the truth.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../src/watch/observe.rs"]
mod observe;
#[allow(dead_code, reason = "the library uses the rest")]
#[path = "../src/watch/others.rs"]
mod others;
#[allow(dead_code, reason = "the library uses the rest")]
#[path = "../src/watch/stall.rs"]
mod stall;

use std::collections::VecDeque;
use std::time::Duration;

use observe::{Inspect, Observation, Poll, State, ThreadTime};
use others::Others;
use proptest::prelude::*;
use stall::{Cause, Config, Look, Worker};

const CONFIG: Config = Config {
    interval: Duration::from_millis(100),
    threshold: Duration::from_millis(100),
    slow_poll: Duration::from_millis(10),
};

/// The activities of a worker's thread, in milliseconds.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// It sleeps in Tokio, because there is nothing to do.
    Park(u64),
    /// A number of polls of this length and kind, each of which yields.
    Polls { count: u64, length: u64, kind: Kind },
    /// One long poll.
    Stuck { length: u64, kind: Kind, named: bool },
    /// Another thread of the same name does other work from now on, for this part of each 100 ms.
    Beside(u64),
    /// The worker moves to another thread with polls of this length and kind, and leaves its thread blocked.
    Moved { count: u64, length: u64, kind: Kind },
    /// The whole process stands still, the watcher too.
    Stopped(u64),
    /// Polls of a container that has its CPU for 10 of 100 ms, as has the watcher.
    Throttled { periods: u64 },
    /// The worker runs a probe.
    Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Computes,
    Blocks,
    /// It can run and gets no CPU.
    Starves,
}

impl Kind {
    fn cause(self) -> Cause {
        match self {
            Kind::Computes => Cause::Running,
            Kind::Blocks => Cause::Blocked,
            Kind::Starves => Cause::Starved,
        }
    }
}

/// A worker that plays a script, one millisecond after the other, and the watcher that looks at it.
struct World {
    now: u64,
    worker: Worker,
    next_look: u64,
    /// The time at which the watcher is due.
    due: u64,
    jitter: VecDeque<u64>,
    counts_polls: bool,
    // The values that Tokio publishes.
    ticks: u64,
    busy: u64,
    park_unpark: u64,
    published: (u64, u64, u64),
    probed: u64,
    // The thread, with its CPU time in microseconds.
    cpu: u64,
    delay: u64,
    unpaid_delay: u64,
    state: State,
    poll: Option<Poll>,
    others: Option<Others>,
    other_cpu: u64,
    other_state: State,
    /// How long of each 100 ms the other thread works.
    beside: u64,
    /// The long polls, and whether the process stood still meanwhile.
    truth: Vec<Truth>,
    found: Vec<(u64, Cause)>,
    /// When the process stood still.
    stops: Vec<(u64, u64)>,
    /// The time of all stalls when it was read last.
    read: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Truth {
    from: u64,
    to: u64,
    kind: Kind,
    named: bool,
}

struct Thread<'a> {
    cpu: u64,
    delay: u64,
    state: State,
    poll: Option<Poll>,
    others: &'a mut Option<Others>,
    other_cpu: u64,
    other_state: State,
}

impl Inspect for Thread<'_> {
    fn time(&mut self) -> Option<ThreadTime> {
        Some(ThreadTime { id: 1, cpu: Duration::from_micros(self.cpu) })
    }

    fn poll(&mut self) -> Option<Poll> {
        self.poll
    }

    fn state(&mut self) -> State {
        self.state
    }

    fn run_delay(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(self.delay))
    }

    fn look_at_others(&mut self, now: Duration, still: Option<Duration>, rest: Duration) {
        let time = ThreadTime { id: 2, cpu: Duration::from_micros(self.other_cpu) };
        self.others.get_or_insert_default().look(now, [time], still, rest, |_| self.other_state);
    }

    fn is_unmoved(&mut self) -> bool {
        self.others.as_ref().is_some_and(Others::have_rested)
    }
}

impl World {
    fn play(script: &[Act], jitter: &[u64], counts_polls: bool) -> World {
        let mut world = World {
            now: 1,
            worker: Worker::default(),
            next_look: 1,
            due: 1,
            jitter: jitter.iter().copied().collect(),
            counts_polls,
            ticks: 0,
            busy: 0,
            park_unpark: 0,
            published: (0, 0, 0),
            probed: 0,
            cpu: 0,
            delay: 0,
            unpaid_delay: 0,
            state: State::Waiting,
            poll: None,
            others: None,
            other_cpu: 0,
            other_state: State::Waiting,
            beside: 0,
            truth: Vec::new(),
            found: Vec::new(),
            stops: Vec::new(),
            read: Duration::ZERO,
        };
        script.iter().for_each(|act| world.act(*act));
        world.act(Act::Park(300));
        world
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Park(length) => {
                self.park_unpark |= 1;
                self.publish();
                (0..length).for_each(|_| self.pass(Kind::Blocks, true));
                self.park_unpark += 1;
                self.publish();
            }
            Act::Polls { count, length, kind } => {
                for _ in 0..count {
                    self.poll(length, kind);
                }
            }
            Act::Stuck { length, kind, named } => {
                let from = self.now;
                self.poll = named.then_some((1, self.ticks));
                self.poll(length, kind);
                self.poll = None;
                self.truth.push(Truth { from, to: self.now, kind, named });
                // Two long polls in a row, without a sign of progress in between, look like one.
                self.act(Act::Park(20));
            }
            Act::Moved { count, length, kind } => {
                let ended = self.cpu;
                for _ in 0..count {
                    for _ in 0..length {
                        self.other_state =
                            if kind == Kind::Blocks { State::Waiting } else { State::Runnable };
                        self.other_cpu += if kind == Kind::Computes { 1000 } else { 0 };
                        self.pass(Kind::Blocks, true);
                    }
                    self.end_poll(length);
                    // Its own thread does not run meanwhile.
                    self.cpu = ended;
                    self.other_cpu += 3;
                }
                self.other_state = State::Waiting;
                self.probed = self.now;
            }
            Act::Beside(work) => (self.beside, self.other_state) = (work, State::Waiting),
            Act::Stopped(length) => {
                // The thread runs for a moment to stop, and again to go on.
                self.cpu += 10;
                self.stops.push((self.now, self.now + length));
                self.now += length;
            }
            Act::Throttled { periods } => {
                for _ in 0..periods {
                    self.poll(5, Kind::Computes);
                    self.poll(4, Kind::Computes);
                    self.run();
                    for _ in 0..90 {
                        self.pass(Kind::Starves, false);
                    }
                    self.end_poll(91);
                }
            }
            Act::Probe => self.probed = self.now,
        }
    }

    fn poll(&mut self, length: u64, kind: Kind) {
        (0..length).for_each(|_| self.pass(kind, true));
        self.end_poll(length);
    }

    fn end_poll(&mut self, length: u64) {
        self.ticks += 1;
        self.busy += length;
        // The work of Tokio itself.
        self.run();
        self.cpu += 3;
        if self.ticks.is_multiple_of(61) {
            self.publish();
        }
    }

    fn run(&mut self) {
        self.delay += std::mem::take(&mut self.unpaid_delay);
        self.state = State::Runnable;
    }

    fn publish(&mut self) {
        self.published = (self.park_unpark, self.busy, self.ticks);
    }

    /// Lets a millisecond pass, and the watcher look if it can.
    fn pass(&mut self, kind: Kind, watched: bool) {
        match kind {
            Kind::Computes => {
                self.run();
                self.cpu += 1000;
            }
            Kind::Blocks => self.state = State::Waiting,
            Kind::Starves => {
                self.state = State::Runnable;
                self.unpaid_delay += 1;
            }
        }
        self.now += 1;
        if self.beside > 0 {
            let works = self.now % 100 < self.beside;
            self.other_state = if works { State::Runnable } else { State::Waiting };
            self.other_cpu += if works { 1000 } else { 0 };
        }
        if watched && self.now >= self.next_look {
            self.look();
        }
        if watched && self.now.is_multiple_of(7) {
            self.read();
        }
    }

    fn observe(&self) -> Observation {
        let (park_unpark, busy, polls) = self.published;
        Observation {
            park_unpark,
            busy: Duration::from_millis(busy),
            polls: self.counts_polls.then_some(polls),
            probed: Duration::from_millis(self.probed),
        }
    }

    /// A reader sees the present stall grow, and never more time than the stall has when it is over.
    fn read(&mut self) {
        self.worker.read(Duration::from_millis(self.now), self.observe());
        let time = self.time();
        assert!(time >= self.read, "{:?} and then {time:?}", self.read);
        self.read = time;
    }

    fn look(&mut self) {
        let seen = self.observe();
        let look =
            Look { now: Duration::from_millis(self.now), on_time: self.now <= self.due.saturating_add(50) };
        let mut thread = Thread {
            cpu: self.cpu,
            delay: self.delay,
            state: self.state,
            poll: self.poll,
            others: &mut self.others,
            other_cpu: self.other_cpu,
            other_state: self.other_state,
        };
        let before = Cause::ALL.map(|cause| self.worker.total(cause).0);
        let is_stall = self.worker.look(look, seen, &CONFIG, &mut thread);
        let after = Cause::ALL.map(|cause| self.worker.total(cause).0);
        for ((cause, before), after) in Cause::ALL.into_iter().zip(before).zip(after) {
            assert!(
                after == before || after == before + 1 && is_stall,
                "{before} and then {after} {cause:?}"
            );
            if after > before {
                self.found.push((self.now, cause));
            }
        }
        let pause =
            if self.worker.is_in_doubt(&CONFIG) { CONFIG.interval_in_doubt() } else { CONFIG.interval };
        self.due = self.now + pause.as_millis() as u64;
        self.next_look = self.due + self.jitter.pop_front().unwrap_or_default();
    }

    fn count(&self, cause: Cause) -> u64 {
        self.worker.total(cause).0
    }

    fn total(&self) -> u64 {
        Cause::ALL.map(|cause| self.count(cause)).iter().sum()
    }

    fn time(&self) -> Duration {
        Cause::ALL.map(|cause| self.worker.total(cause).1).iter().sum()
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Computes), Just(Kind::Blocks)]
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Computes), Just(Kind::Blocks), Just(Kind::Starves)]
}

fn harmless() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1..2000_u64).prop_map(Act::Park),
        6 => (1..400_u64, 1..=10_u64, kind()).prop_map(|(count, length, kind)| Act::Polls { count, length, kind }),
        1 => (1..300_u64, 1..=10_u64, any_kind()).prop_map(|(count, length, kind)| Act::Moved { count, length, kind }),
        1 => (0..=40_u64).prop_map(Act::Beside),
        1 => (1..5000_u64).prop_map(Act::Stopped),
        1 => (1..20_u64).prop_map(|periods| Act::Throttled { periods }),
        2 => Just(Act::Probe),
    ]
}

fn stuck() -> impl Strategy<Value = Act> {
    (100..2500_u64, any_kind(), any::<bool>()).prop_map(|(length, kind, named)| Act::Stuck {
        length,
        kind,
        named,
    })
}

fn jitter() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0..15_u64, 0..200)
}

proptest! {
    #[test]
    fn no_stall_is_found_where_there_is_none(
        script in prop::collection::vec(harmless(), 1..12),
        jitter in jitter(),
        counts_polls: bool,
    ) {
        let world = World::play(&script, &jitter, counts_polls);
        prop_assert_eq!((world.total(), world.time()), (0, Duration::ZERO), "{:?}", world.found);
    }

    #[test]
    fn every_stall_is_found_and_no_other(
        script in prop::collection::vec(prop_oneof![3 => harmless(), 2 => stuck()], 1..12),
        jitter in jitter(),
        counts_polls: bool,
    ) {
        let world = World::play(&script, &jitter, counts_polls);
        let interval = 100 + 15;
        for (when, cause) in &world.found {
            // A look may come up to an interval later, or find out only when the worker publishes.
            let stopped = |truth: &Truth| -> u64 {
                let stops = world.stops.iter().filter(|(from, to)| truth.to <= *from && to <= when);
                stops.map(|(from, to)| to - from).sum()
            };
            let near = |truth: &Truth| {
                truth.from <= *when && *when <= truth.to + 640 + 10 * 61 + interval + stopped(truth)
            };
            prop_assert!(world.truth.iter().any(near), "{cause:?} at {when}: {:?}", world.truth);
        }
        for truth in &world.truth {
            let length = truth.to - truth.from;
            let noticed = match truth.kind {
                Kind::Computes if !truth.named => 640 + 2 * interval + 30,
                // The thread has to be seen runnable and without a CPU twice.
                Kind::Starves => 100 + 2 * interval + 60,
                _ => 100 + interval + 60,
            };
            // A thread that works beside it has to rest first.
            let noticed = noticed + if script.iter().any(|act| matches!(act, Act::Beside(_))) { 110 } else { 0 };
            // Short polls that wait may have begun the silence in which a computation is found.
            let may_seem_blocked = truth.kind == Kind::Computes && !truth.named;
            let during = |(when, cause): &&(u64, Cause)| {
                (truth.from..=truth.to + interval).contains(when)
                    && (*cause == truth.kind.cause() || may_seem_blocked && *cause == Cause::Blocked)
            };
            prop_assert!(
                length < noticed || world.found.iter().any(|found| during(&found)),
                "{truth:?} in {:?}", world.found,
            );
        }
        prop_assert!(world.time() <= Duration::from_millis(world.now));
        prop_assert!(world.worker.present().is_none());
    }
}

fn stuck_for(length: u64, kind: Kind) -> World {
    World::play(&[Act::Park(500), Act::Stuck { length, kind, named: false }, Act::Park(500)], &[], false)
}

#[test]
fn each_cause_is_counted_under_its_name_and_for_its_time() {
    for (kind, length) in [(Kind::Blocks, 400), (Kind::Starves, 400), (Kind::Computes, 1000)] {
        let world = stuck_for(length, kind);
        assert_eq!((world.count(kind.cause()), world.total()), (1, 1), "{kind:?}");
        let error = world.time().as_millis().abs_diff(u128::from(length));
        assert!(error <= 200, "{kind:?}: {:?} of {length} ms", world.time());
    }
}

#[test]
fn the_cause_of_a_named_poll_is_what_its_thread_does_most() {
    // A period that is none of the watcher's.
    let kinds = [
        (8, 3, 2, Cause::Running),
        (4, 1, 8, Cause::Starved),
        (3, 9, 1, Cause::Blocked),
        (4, 0, 9, Cause::Starved),
    ];
    for (computes, blocks, starves, cause) in kinds {
        for phase in 0..10 {
            let mut world = World::play(&[Act::Park(100 + phase)], &[], false);
            world.poll = Some((1, world.ticks));
            for _ in 0..40 {
                (0..computes).for_each(|_| world.pass(Kind::Computes, true));
                (0..blocks).for_each(|_| world.pass(Kind::Blocks, true));
                (0..starves).for_each(|_| world.pass(Kind::Starves, true));
            }
            assert_eq!(
                world.found.first().map(|found| found.1),
                Some(cause),
                "{computes} {blocks} {starves}"
            );
        }
    }
}

#[test]
fn a_reader_sees_a_stall_grow_between_two_looks() {
    let mut world = World::play(&[], &[], false);
    world.state = State::Waiting;
    while world.worker.present().is_none() {
        world.pass(Kind::Blocks, true);
    }
    let (_, since) = world.worker.present().expect("a stall");
    world.next_look = u64::MAX;
    for passed in 0..50 {
        world.pass(Kind::Blocks, false);
        world.read();
        assert_eq!(world.time() + since, Duration::from_millis(world.now), "after {passed} ms");
    }
    // The worker has gone on: the stall may have ended at any time since the last reading.
    let last = world.time();
    world.poll(1, Kind::Computes);
    world.publish();
    (0..20).for_each(|_| world.pass(Kind::Blocks, false));
    world.read();
    assert_eq!(world.time(), last);
}

#[test]
fn a_blocked_worker_is_noticed_beside_threads_that_do_other_work() {
    // A thread that never rests may have taken the worker over. That shows once the worker has been silent for long.
    for (work, length, count) in [(40, 400, 1), (100, 2000, 0), (100, 3000, 1)] {
        let stuck = Act::Stuck { length, kind: Kind::Blocks, named: false };
        let script = [Act::Park(500), Act::Beside(work), stuck, Act::Beside(0), Act::Park(500)];
        let world = World::play(&script, &[], false);
        assert_eq!(
            (world.count(Cause::Blocked), world.total()),
            (count, count),
            "{work} of 100 ms, {length} ms"
        );
    }
}

#[test]
fn a_late_watcher_does_not_lengthen_a_stall_that_has_ended() {
    let mut world = World::play(&[], &[], false);
    (0..400).for_each(|_| world.pass(Kind::Blocks, true));
    assert_eq!(world.count(Cause::Blocked), 1);
    world.next_look = world.now + 2000;
    world.act(Act::Park(2500));
    assert!(world.worker.present().is_none());
    let time = world.time();
    assert!(time <= Duration::from_millis(500), "{time:?} of 400 ms");
}

#[test]
fn a_wait_shorter_than_the_threshold_is_no_stall() {
    for kind in [Kind::Blocks, Kind::Starves, Kind::Computes] {
        assert_eq!(stuck_for(95, kind).total(), 0, "{kind:?}");
    }
}

#[test]
fn the_count_of_polls_shows_a_computation_once_it_is_over() {
    for (counts_polls, stalls) in [(true, 1), (false, 0)] {
        let poll = Act::Stuck { length: 150, kind: Kind::Computes, named: false };
        let world = World::play(&[Act::Park(500), poll, Act::Park(500)], &[], counts_polls);
        assert_eq!(world.count(Cause::Running), stalls);
        // Two polls in the same time may have been short enough.
        let polls = Act::Polls { count: 2, length: 75, kind: Kind::Computes };
        assert_eq!(World::play(&[Act::Park(500), polls, Act::Park(500)], &[], counts_polls).total(), 0);
    }
}

#[test]
fn a_named_poll_shows_a_computation_while_it_goes_on() {
    let poll = Act::Stuck { length: 350, kind: Kind::Computes, named: true };
    let world = World::play(&[Act::Park(500), poll, Act::Park(500)], &[], false);
    assert_eq!(world.count(Cause::Running), 1);
    assert!(world.found.iter().all(|(when, _)| *when <= 502 + 350), "{:?}", world.found);
}

#[test]
fn a_poll_that_waits_again_and_again_is_found_after_a_while() {
    let mut script = vec![Act::Park(500)];
    // One poll of 1.2 s, in which the thread wakes up every 2 ms.
    script.push(Act::Stuck { length: 1, kind: Kind::Computes, named: false });
    let mut world = World::play(&script, &[], false);
    for _ in 0..600 {
        world.pass(Kind::Blocks, true);
        world.pass(Kind::Computes, true);
    }
    assert_eq!(world.total(), 1);
}

#[test]
fn an_absent_worker_withdraws_its_present_stall() {
    let mut world = stuck_for(1, Kind::Blocks);
    (0..400).for_each(|_| world.pass(Kind::Blocks, true));
    assert_eq!(world.count(Cause::Blocked), 1);
    world.worker.mark_absent();
    assert_eq!((world.total(), world.time()), (0, Duration::ZERO));
}

/// An unknown thread.
struct Unknown;

impl Inspect for Unknown {
    fn time(&mut self) -> Option<ThreadTime> {
        None
    }

    fn poll(&mut self) -> Option<Poll> {
        None
    }

    fn state(&mut self) -> State {
        State::Unknown
    }

    fn run_delay(&mut self) -> Option<Duration> {
        None
    }

    fn look_at_others(&mut self, _: Duration, _: Option<Duration>, _: Duration) {}

    fn is_unmoved(&mut self) -> bool {
        false
    }
}

#[test]
fn an_unknown_thread_is_judged_by_silence_alone() {
    let mut worker = Worker::default();
    let awake = Observation { park_unpark: 2, busy: Duration::ZERO, polls: None, probed: Duration::ZERO };
    let mut at = |millis, on_time| {
        let look = Look { now: Duration::from_millis(millis), on_time };
        worker.look(look, awake, &CONFIG, &mut Unknown);
        worker.present()
    };
    assert_eq!(at(100, true), None);
    assert_eq!(at(700, true), None);
    assert_eq!(at(2000, false), None, "the watcher was stopped too");
    assert_eq!(at(2700, true), None);
    assert_eq!(at(4500, true), None, "it may be short of CPU time");
    assert_eq!(at(4600, true), Some((Cause::Running, Duration::from_millis(2000))));
}

#[test]
fn a_thread_that_ends_during_the_check_is_unknown() {
    let mut world = stuck_for(1, Kind::Blocks);
    (0..250).for_each(|_| world.pass(Kind::Blocks, true));
    let now = world.now;
    let seen = Observation {
        park_unpark: world.published.0,
        busy: Duration::from_millis(world.published.1),
        polls: None,
        probed: Duration::ZERO,
    };
    let look = |millis| Look { now: Duration::from_millis(now + millis), on_time: true };
    let present = world.worker.present();
    world.worker.look(look(1), seen, &CONFIG, &mut Unknown);
    assert_eq!(
        world.worker.present(),
        present,
        "a stall that was known goes on until the worker makes progress"
    );
}
