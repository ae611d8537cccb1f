//! When a worker counts as stalled. Time comes in from outside.

use std::time::Duration;

/// What a worker shows of itself at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Tokio's count of parks and unparks: odd while the worker sleeps.
    pub(super) park_unpark: u64,
    /// Tokio's busy time. Published when the worker parks, and by a worker that never does every 61 tasks.
    pub(super) busy: Duration,
}

/// How patient the watcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// The time between two looks.
    pub(super) interval: Duration,
    /// From when on a worker without progress is stalled.
    pub(super) threshold: Duration,
}

impl Pace {
    /// How often a silent worker is asked before it counts as stalled.
    const QUESTIONS: u32 = 8;
    /// For how many times the threshold a queue excuses that nobody answers.
    const EXCUSED: u32 = 10;

    /// The time between two looks while a worker is in doubt.
    pub(super) fn while_in_doubt(&self) -> Duration {
        (self.interval / 10).max(Duration::from_millis(1))
    }
}

/// A worker, as far as its stalls go.
#[derive(Debug, Default)]
pub(super) struct Worker {
    last: Option<Look>,
    /// Whether it has not slept from one look to the next.
    awake: bool,
    /// When it was last known not to be stuck.
    progress: Duration,
    looked: Duration,
    /// How often it was asked, by probes that it could have run, since it fell silent.
    asked: u32,
    stalled_since: Option<Duration>,
    stalls: u64,
    time: Duration,
}

impl Worker {
    /// Takes in one look. `heard` is when the worker last ran a probe.
    ///
    /// Even and unchanged means stuck in one poll, or saturated with polls so long that 61 of them have not passed.
    /// The probes tell the one from the other, unless they have to queue behind tasks that are being run: `queued`.
    pub(super) fn look(&mut self, now: Duration, look: Look, heard: Duration, queued: bool, pace: Pace) {
        let parked = look.park_unpark % 2 == 1;
        let last = self.last.replace(look);
        let changed = last != Some(look);
        self.awake = !parked && last.is_some_and(|last| last.park_unpark == look.park_unpark);
        self.looked = now;
        if parked || changed {
            self.moved(now);
        } else if heard > self.progress {
            self.moved(heard);
        }
        let silent = now.saturating_sub(self.progress);
        let excused = queued && silent < pace.threshold.saturating_mul(Pace::EXCUSED);
        if silent >= pace.threshold && self.asked >= Pace::QUESTIONS && !excused {
            self.stalled_since.get_or_insert(self.progress);
        } else if now > self.progress && silent + pace.interval / 2 >= pace.threshold {
            self.asked += 1;
        } else {
            self.asked = 0;
        }
    }

    /// The worker is not there at all, such as that of a current-thread runtime that nobody drives: a stall that
    /// was thought to go on never was.
    pub(super) fn is_absent(&mut self, now: Duration) {
        self.stalled_since = None;
        self.moved(now);
    }

    fn moved(&mut self, when: Duration) {
        if let Some(since) = self.stalled_since.take() {
            self.stalls += 1;
            self.time += when.saturating_sub(since);
        }
        self.progress = when;
        self.asked = 0;
    }

    /// Whether probes have to tell if it makes progress.
    pub(super) fn is_to_be_asked(&self) -> bool {
        self.awake
    }

    /// Whether it is about to count as stalled unless it runs a probe.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.asked > 0 && self.stalled_since.is_none()
    }

    fn is_stalled(&self) -> bool {
        self.stalled_since.is_some()
    }

    /// How many stalls there were, the present one included.
    pub(super) fn stalls(&self) -> u64 {
        self.stalls + u64::from(self.is_stalled())
    }

    /// How long they lasted, until the last look.
    pub(super) fn time(&self) -> Duration {
        let present = self.stalled_since.map(|since| self.looked.saturating_sub(since));
        self.time + present.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { interval: Duration::from_millis(100), threshold: Duration::from_millis(100) };

    /// A worker and the watcher's clock: looks every 100 ms, every 10 ms in doubt.
    #[derive(Default)]
    struct Scene {
        worker: Worker,
        now: Duration,
        heard: Duration,
        queued: bool,
        look: (u64, u64),
    }

    impl Scene {
        /// Lets time pass until a moment, the worker showing the same all along.
        fn until(&mut self, milliseconds: u64) -> &mut Self {
            while self.now < Duration::from_millis(milliseconds) {
                let look = Look { park_unpark: self.look.0, busy: Duration::from_millis(self.look.1) };
                self.worker.look(self.now, look, self.heard, self.queued, PACE);
                self.now += if self.worker.is_in_doubt() { PACE.while_in_doubt() } else { PACE.interval };
            }
            self
        }

        fn shows(&mut self, park_unpark: u64, busy: u64) -> &mut Self {
            self.look = (park_unpark, busy);
            self
        }

        fn seen(&self) -> (u64, u128) {
            (self.worker.stalls(), self.worker.time().as_millis())
        }
    }

    #[test]
    fn a_worker_that_is_stuck_is_noticed_while_it_is_and_counted_once() {
        let mut scene = Scene::default();
        scene.shows(1, 0).until(1000).shows(2, 0).until(1300);
        let (stalls, time) = scene.seen();
        assert_eq!(stalls, 1);
        assert!((100..=300).contains(&time), "{time} of 300 ms");
        scene.until(2000);
        let (stalls, time) = scene.seen();
        assert_eq!(stalls, 1);
        assert!((800..=1000).contains(&time), "{time} of 1000 ms");
        scene.shows(3, 1000).until(3000);
        let (stalls, time) = scene.seen();
        assert_eq!(stalls, 1);
        assert!((900..=1100).contains(&time), "{time} of 1000 ms");
        assert_eq!(scene.until(9000).seen(), (stalls, time), "over");
        scene.shows(4, 1000).until(10_000);
        assert_eq!(scene.seen().0, 2, "another one");
    }

    #[test]
    fn a_worker_that_sleeps_or_publishes_is_not_stuck() {
        let mut scene = Scene::default();
        assert_eq!(scene.shows(1, 0).until(5000).seen(), (0, 0));
        for moment in 1..50 {
            scene.shows(2, moment).until(5000 + moment * 100);
        }
        assert_eq!(scene.seen(), (0, 0));
    }

    #[test]
    fn a_worker_that_runs_probes_is_saturated_and_not_stuck() {
        let mut scene = Scene::default();
        scene.shows(2, 0);
        for moment in 1..100 {
            scene.until(moment * 50);
            scene.heard = scene.now;
        }
        assert_eq!(scene.seen(), (0, 0));
        scene.until(6000);
        assert_eq!(scene.seen().0, 1, "it got stuck after all");
    }

    #[test]
    fn a_queue_excuses_silence_for_a_while_and_not_for_ever() {
        let mut scene = Scene { queued: true, ..Scene::default() };
        scene.shows(2, 0).until(900);
        assert_eq!(scene.seen(), (0, 0));
        scene.until(1101);
        let (stalls, time) = scene.seen();
        assert_eq!(stalls, 1);
        assert!(time >= 1000, "{time} of 1100 ms");
    }

    #[test]
    fn a_probe_that_ran_ends_a_stall_at_its_moment() {
        let mut scene = Scene::default();
        scene.shows(2, 0).until(1000);
        assert_eq!(scene.seen().0, 1);
        scene.heard = Duration::from_millis(1030);
        scene.until(1101);
        assert_eq!(scene.seen(), (1, 1030));
    }

    #[test]
    fn a_watcher_that_was_kept_from_looking_blames_nobody() {
        let mut scene = Scene::default();
        scene.shows(2, 0).until(100);
        scene.now += Duration::from_secs(10);
        scene.until(10_150).shows(3, 1).until(11_000);
        assert_eq!(scene.seen(), (0, 0));
    }

    #[test]
    fn an_absent_worker_takes_its_present_stall_back() {
        let mut scene = Scene::default();
        scene.shows(2, 0).until(1000);
        scene.worker.is_absent(scene.now);
        assert_eq!(scene.seen(), (0, 0));
    }
}
