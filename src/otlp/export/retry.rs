//! One export: attempts until the receiver has it, does not want it, or time is up.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use tokio::time::sleep;

use crate::otlp::config::resource::random;
use crate::otlp::config::target::Target;
use crate::otlp::send::Transport;

/// What the receiver did with an export that it took.
pub(in crate::otlp) enum Delivered {
    All,
    /// It rejected some of the points, for good.
    Partly {
        rejected: i64,
        message: String,
    },
}

impl Delivered {
    pub(in crate::otlp) fn new(answer: ExportMetricsServiceResponse, target: &Target) -> Self {
        match answer.partial_success {
            Some(part) if part.rejected_data_points > 0 || !part.error_message.is_empty() => {
                Delivered::Partly {
                    rejected: part.rejected_data_points,
                    message: target.redact(&part.error_message),
                }
            }
            _ => Delivered::All,
        }
    }
}

/// Why an attempt failed.
#[derive(Debug)]
pub(in crate::otlp) struct Failure {
    pub(in crate::otlp) message: String,
    pub(in crate::otlp) again: Again,
}

/// Whether the same may succeed later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::otlp) enum Again {
    Never,
    Soon,
    /// The receiver said when.
    After(Duration),
}

pub(in crate::otlp) struct Delivery {
    transport: Transport,
    /// The receiver asked for quiet until then.
    quiet_until: Option<Instant>,
    /// Why the last attempt of the export under way failed.
    last: Option<Failure>,
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A receiver that asks for more than this is not believed.
const LONGEST_QUIET: Duration = Duration::from_secs(600);

impl Delivery {
    pub(in crate::otlp) fn new(transport: Transport) -> Self {
        Delivery { transport, quiet_until: None, last: None }
    }

    pub(in crate::otlp) fn has_to_wait(&self, now: Instant) -> bool {
        self.quiet_until.is_some_and(|until| now < until)
    }

    /// May be dropped at any time, upon which [`abandon`](Self::abandon) is due.
    pub(in crate::otlp) async fn deliver(
        &mut self,
        metrics: &ResourceMetrics,
        deadline: Instant,
    ) -> Result<Delivered, Failure> {
        self.last = None;
        self.quiet_until = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.transport.send(metrics).await {
                Ok(delivered) => return Ok(delivered),
                Err(failure) => failure,
            };
            let wait = match failure.again {
                Again::Never => return Err(failure),
                Again::Soon => jittered(pause),
                Again::After(time) => {
                    let time = time.min(LONGEST_QUIET);
                    self.quiet_until = Some(Instant::now() + time);
                    time.max(jittered(pause))
                }
            };
            if Instant::now() + wait >= deadline {
                return Err(failure);
            }
            self.last = Some(failure);
            sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Time is up: whatever did not answer is not asked again on the same connection.
    pub(in crate::otlp) fn abandon(&mut self) -> Failure {
        self.transport.reconnect();
        self.last.take().unwrap_or_else(|| Failure {
            message: format!("{} did not answer in time", self.transport.name()),
            again: Again::Soon,
        })
    }
}

/// Three quarters to five quarters of the pause, so that not all instances of a service come back at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + (random() % 1024) as f64 / 2048.0)
}
