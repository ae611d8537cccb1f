//! The thread that takes profiles and exports them. It is another one than that of the metrics, which go on while a profile
//! is taken, its names are looked up or its endpoint does not answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::otlp::error::Error;
use crate::otlp::export::exporter::Exporter;
use crate::otlp::export::request::Request;
use crate::otlp::export::taken::Taken;
use crate::otlp::send::outcome::Retry;
use crate::otlp::send::payload::{Payload, Signal};
use crate::otlp::send::transport::Transport;
use crate::profile::{self, Profile};
use crate::util::{log, thread as background};

/// The handle to the thread.
#[derive(Clone, Debug)]
pub(crate) struct Profiles {
    requests: UnboundedSender<Request>,
    exports: u64,
}

/// The settings of the thread.
pub(crate) struct Plan {
    pub(crate) resource: Resource,
    pub(crate) timeout: Duration,
    /// The number of exports of metrics from one profile to the next.
    pub(crate) exports: u64,
    /// The time from the start of one CPU profile to that of the next. `None` without CPU profiles.
    pub(crate) cpu_interval: Option<Duration>,
}

/// Says when a profile is due, by the number of exports of metrics.
pub(crate) struct Schedule {
    profiles: Profiles,
    noted: u64,
}

/// A profile that is due may wait as long as it takes for the one before.
const UNHURRIED: Duration = Duration::from_secs(86_400);

/// The time for which CPU time is sampled.
const CPU_DURATION: Duration = Duration::from_secs(10);

impl Profiles {
    /// Starts the thread.
    pub(crate) fn start(transport: Transport, plan: Plan) -> Result<Self, Error> {
        let (requests, inbox) = unbounded_channel();
        let exports = plan.exports;
        let thread = thread::Builder::new().name("otlp-profiles".into());
        background::spawn_with_runtime(thread, move |runtime| {
            Worker::new(transport, inbox, plan).run(runtime)
        })
        .map_err(|error| Error::Start(error.to_string()))?;
        Ok(Profiles { requests, exports })
    }

    pub(crate) fn schedule(&self) -> Schedule {
        Schedule { profiles: self.clone(), noted: 0 }
    }

    /// Requests the last export. The result comes when the thread has done what it can until the deadline.
    pub(crate) fn end(&self, deadline: Instant) -> Receiver<Result<(), Error>> {
        self.request(true, deadline)
    }

    fn request(&self, is_last: bool, deadline: Instant) -> Receiver<Result<(), Error>> {
        let (reply, answer) = sync_channel(1);
        // If the thread has ended, the answer is that its channel is closed.
        let _ = self.requests.send(Request { is_last, deadline, reply });
        answer
    }
}

impl Schedule {
    /// Notes that metrics are exported. The first profile goes with the second export.
    pub(crate) fn note_export(&mut self) {
        self.noted += 1;
        if self.noted >= 2 && (self.noted - 2).is_multiple_of(self.profiles.exports) {
            // No reply is waited for.
            drop(self.profiles.request(false, Instant::now() + UNHURRIED));
        }
    }
}

struct Worker {
    exporter: Exporter,
    taken: Taken,
    cpu_interval: Option<Duration>,
    next_cpu: Instant,
}

impl Worker {
    fn new(transport: Transport, requests: UnboundedReceiver<Request>, plan: Plan) -> Self {
        let Plan { resource, timeout, cpu_interval, exports: _ } = plan;
        Worker {
            exporter: Exporter::new(Signal::Profiles, transport, requests, timeout),
            taken: Taken::new(&resource),
            cpu_interval,
            next_cpu: Instant::now() + cpu_interval.unwrap_or(UNHURRIED),
        }
    }

    fn run(mut self, runtime: Runtime) {
        // The log of the transport must not become telemetry that has to be exported.
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        while runtime.block_on(self.exporter.wait_until(self.next_cpu)) {
            let cpu = (Instant::now() >= self.next_cpu).then(|| self.cpu(&runtime)).flatten();
            let waiting = std::mem::take(&mut self.exporter.waiting);
            let is_last = waiting.iter().any(|request| request.is_last);
            let has_service = self.export(&runtime, cpu, &waiting);
            if is_last {
                self.exporter.outage.ended();
            }
            for request in waiting {
                // A caller that no longer listens has given up.
                let _ = request.reply.try_send(Ok(()));
            }
            if is_last || !has_service {
                break;
            }
        }
        runtime.shutdown_background();
    }

    /// Samples CPU time. Ends early if the process ends.
    fn cpu(&mut self, runtime: &Runtime) -> Option<Profile> {
        let interval = self.cpu_interval?;
        self.next_cpu = Instant::now() + interval;
        let exporter = &mut self.exporter;
        let pause = |time| runtime.block_on(exporter.pause(time));
        match profile::cpu_while(CPU_DURATION.min(interval), pause) {
            Ok(profile) => Some(profile),
            // The debug server, or the application itself, takes one.
            Err(profile::Error::AlreadyRunning) => None,
            Err(error) => {
                self.cpu_interval = None;
                self.next_cpu = Instant::now() + UNHURRIED;
                log::warn("no CPU profiles are exported", &error.to_string());
                None
            }
        }
    }

    /// Takes the profiles that are due and exports them. Returns false if the endpoint has no service for them.
    fn export(&mut self, runtime: &Runtime, cpu: Option<Profile>, waiting: &[Request]) -> bool {
        let is_last = waiting.iter().any(|request| request.is_last);
        // The unwinder and the reader of debug information are the work of others.
        let take = AssertUnwindSafe(|| self.taken.message(cpu, !waiting.is_empty(), is_last));
        let message = match catch_unwind(take) {
            Ok(message) => message,
            Err(_) => {
                self.exporter.outage.lost("taking a profile panicked");
                return true;
            }
        };
        let Some(message) = message else { return true };
        // Only the end of the process is worth a hurry.
        let hurried = if is_last { waiting } else { &[] };
        match runtime.block_on(self.exporter.export(Payload::Profiles(&message), hurried)) {
            Ok(true) => self.taken.delivered(),
            Ok(false) => {}
            Err(error) => return error.retry != Retry::NoService,
        }
        true
    }
}
