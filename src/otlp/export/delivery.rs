//! One export: attempts until the endpoint accepts it or refuses it, or time is up.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use uuid::Uuid;

use crate::otlp::send::outcome::{Outcome, Retry, SendError};
use crate::otlp::send::payload::Payload;
use crate::otlp::send::stream::Notes;
use crate::otlp::send::transport::Transport;

pub(crate) struct Delivery {
    transport: Transport,
    /// The endpoint asked for quiet until then.
    quiet_until: Option<Instant>,
    /// Why the last attempt of the export under way failed.
    last: Option<SendError>,
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// An endpoint that asks for more quiet than this is not believed.
const MAX_QUIET: Duration = Duration::from_secs(600);
/// The time that the last export waits for the first connection, and again for TLS over it. A process that ends must not
/// wait for an endpoint that was never there, and a connection takes a fraction of this to any place on earth.
const LAST_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

impl Delivery {
    pub(crate) fn new(transport: Transport) -> Self {
        Delivery { transport, quiet_until: None, last: None }
    }

    pub(crate) fn must_wait(&self, now: Instant) -> bool {
        self.quiet_until.is_some_and(|until| now < until)
    }

    /// May be dropped at any time, after which [`abandon`](Self::abandon) is due.
    pub(crate) async fn deliver(
        &mut self,
        payload: Payload<'_>,
        deadline: Instant,
        is_last: bool,
    ) -> Result<Outcome, SendError> {
        self.last = None;
        self.quiet_until = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt(payload, is_last).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            let wait = match error.retry {
                Retry::Never | Retry::NoService => return Err(error),
                Retry::Soon => jittered(pause),
                Retry::After(time) => {
                    let time = time.min(MAX_QUIET);
                    self.quiet_until = Some(Instant::now() + time);
                    time.max(jittered(pause))
                }
            };
            let is_hopeless = is_last && !is_reached(self.transport.notes());
            if is_hopeless || Instant::now() + wait >= deadline {
                return Err(error);
            }
            self.last = Some(error);
            sleep(wait).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn attempt(&mut self, payload: Payload<'_>, is_last: bool) -> Result<Outcome, SendError> {
        let notes = self.transport.notes().cloned();
        let name = self.transport.route();
        let attempt = self.transport.send(payload);
        if !is_last || is_reached(notes.as_ref()) {
            return attempt.await;
        }
        tokio::pin!(attempt);
        // One time for the connection itself, and one for TLS over it.
        for tries in 1..=2 {
            tokio::select! {
                biased;
                result = &mut attempt => return result,
                () = sleep(LAST_CONNECT_TIMEOUT) => {}
            }
            if is_reached(notes.as_ref()) {
                break;
            }
            if tries == 2 || !notes.as_ref().is_some_and(Notes::is_begun) {
                let time = LAST_CONNECT_TIMEOUT * tries;
                return Err(SendError::new(format!("{name}: no connection in {time:?}"), Retry::Never));
            }
        }
        attempt.await
    }

    /// Time is up: an endpoint that did not answer is not asked again on the same connection.
    pub(crate) fn abandon(&mut self) -> SendError {
        self.transport.reconnect();
        let silent =
            || SendError::new(format!("{} did not answer in time", self.transport.route()), Retry::Soon);
        self.last.take().unwrap_or_else(silent)
    }
}

/// True once a connection to the endpoint was made.
pub(crate) fn is_reached(notes: Option<&Notes>) -> bool {
    notes.is_none_or(Notes::is_connected)
}

/// Three quarters to five quarters of the pause, so that not all instances of a service come back at once.
fn jittered(pause: Duration) -> Duration {
    let random = Uuid::new_v4().as_u128() % 1024;
    pause.mul_f64(0.75 + random as f64 / 2048.0)
}
