//! One line at the start of an outage and one at its end.

use std::time::Instant;

use crate::otlp::export::retry::Delivered;
use crate::util::log;

pub(in crate::otlp) struct Outage {
    receiver: String,
    state: State,
}

enum State {
    Fine,
    /// Exports are lost.
    Down {
        since: Instant,
        lost: u64,
    },
    /// Exports are taken, but not all of their points.
    Picky {
        since: Instant,
        rejected: u64,
    },
}

impl Outage {
    pub(in crate::otlp) fn new(receiver: String) -> Self {
        Outage { receiver, state: State::Fine }
    }

    pub(in crate::otlp) fn lost(&mut self, why: &str) {
        match &mut self.state {
            State::Down { lost, .. } => *lost += 1,
            _ => {
                self.state = State::Down { since: Instant::now(), lost: 1 };
                log::warn("metrics are not delivered; nothing more is said until they are", why);
            }
        }
    }

    /// An export was left out because the receiver had asked for quiet.
    pub(in crate::otlp) fn skipped(&mut self) {
        if let State::Down { lost, .. } = &mut self.state {
            *lost += 1;
        }
    }

    pub(in crate::otlp) fn delivered(&mut self, delivered: &Delivered) {
        if let State::Down { since, lost } = self.state {
            let time = since.elapsed();
            let about = format!("{} was out for {time:.1?}, {lost} exports were lost", self.receiver);
            log::info("metrics are delivered again", &about);
            self.state = State::Fine;
        }
        match (delivered, &mut self.state) {
            (Delivered::All, State::Picky { since, rejected }) => {
                let about = format!("{rejected} points were rejected in {:.1?}", since.elapsed());
                log::info("metrics are taken completely again", &about);
                self.state = State::Fine;
            }
            (Delivered::All, _) => {}
            (Delivered::Partly { rejected: new, .. }, State::Picky { rejected, .. }) => {
                *rejected += new.unsigned_abs();
            }
            (Delivered::Partly { rejected, message }, _) => {
                let about = format!("{} rejects {rejected} points: {message}", self.receiver);
                log::warn("some metrics are rejected; nothing more is said until all are taken", &about);
                self.state = State::Picky { since: Instant::now(), rejected: rejected.unsigned_abs() };
            }
        }
    }
}
