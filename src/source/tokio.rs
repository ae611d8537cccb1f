//! `tokio.*`: what the watched runtimes say of themselves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Handle, RuntimeFlavor, RuntimeMetrics};

use super::{Source, Table};
use crate::metric::{Attributes, Points, Scope, Value, counter, counter_of_seconds, up_down_counter};
use crate::runtime_metrics::Options;

const RUNTIME_NAME: &str = "tokio.runtime.name";
const WORKER_INDEX: &str = "tokio.worker.index";

pub(crate) static TABLE: Table<Runtime> = Table {
    name: "tokio",
    about: "One set of points for each watched runtime. `tokio.runtime.name` is there once a runtime has a name or \
            more than one is watched.",
    attributes: &[RUNTIME_NAME],
    rows: &[
        up_down_counter("tokio.worker.count", "{worker}", |runtime: &Runtime, to| match runtime.parked() {
            Some(parked) => {
                to.with("active", (runtime.metrics.num_workers() as u64).saturating_sub(parked));
                to.with("parked", parked);
            }
            None => to.value(runtime.metrics.num_workers() as u64),
        })
        .by("tokio.worker.state")
        .says("Worker threads of the runtime.")
        .from("Tokio: `num_workers`; parked by the parity of `worker_park_unpark_count`, on multi-thread runtimes.")
        .moves("Fixed when the runtime is built. All active for long means that the runtime is saturated or blocked."),
        up_down_counter("tokio.task.count", "{task}", |runtime: &Runtime, to| to.value(runtime.metrics.num_alive_tasks() as u64))
            .says("Tasks that are alive.")
            .from("Tokio: `num_alive_tasks`.")
            .moves("Rises with load and falls with it. Rising without falling is a leak of tasks."),
        up_down_counter("tokio.queue.length", "{task}", |runtime: &Runtime, to| {
            to.with("global", runtime.metrics.global_queue_depth() as u64);
        })
        .by("tokio.queue.type")
        .says("Tasks that wait for a worker.")
        .from("Tokio: `global_queue_depth`.")
        .moves("Above zero for long: there is more to do than the workers can do, or they are blocked."),
        counter_of_seconds("tokio.worker.busy.time", |runtime: &Runtime, to| {
            runtime.workers(to, |worker| runtime.metrics.worker_total_busy_duration(worker).as_secs_f64());
        })
        .on_request_by(WORKER_INDEX)
        .says("Time that workers spent running tasks.")
        .from("Tokio: `worker_total_busy_duration`.")
        .moves("Its rate over the number of workers is the load. It moves when a poll ends, so it stands still during a stall."),
        counter("tokio.worker.parks", "{park}", |runtime: &Runtime, to| {
            runtime.workers(to, |worker| runtime.metrics.worker_park_count(worker));
        })
        .on_request_by(WORKER_INDEX)
        .says("Times that a worker went to sleep because there was nothing to do.")
        .from("Tokio: `worker_park_count`.")
        .moves("Standing still while there is work: the workers are saturated or blocked."),
    ],
};

/// A source of all runtimes in the registry.
pub(crate) fn source(_options: &Options, runtimes: &Arc<Runtimes>) -> Source {
    let any = Arc::clone(runtimes);
    let runtimes = Arc::clone(runtimes);
    TABLE
        .on(false, move |visit| runtimes.lock().iter().for_each(|runtime| visit(&runtime.scope, runtime)))
        .when(move || !any.lock().is_empty())
}

/// A runtime that is watched.
pub(crate) struct Runtime {
    scope: Scope,
    per_worker: bool,
    flavor: RuntimeFlavor,
    metrics: RuntimeMetrics,
}

impl Runtime {
    /// How many workers sleep. A current-thread runtime does not tell.
    fn parked(&self) -> Option<u64> {
        (self.flavor == RuntimeFlavor::MultiThread).then(|| {
            let parked = |worker: &usize| self.metrics.worker_park_unpark_count(*worker) % 2 == 1;
            (0..self.metrics.num_workers()).filter(parked).count() as u64
        })
    }

    /// One point for each worker, or one for all.
    fn workers<T: Into<Value> + std::iter::Sum>(&self, to: &mut Points<'_, T>, read: impl Fn(usize) -> T) {
        let workers = 0..self.metrics.num_workers();
        if self.per_worker {
            workers.for_each(|worker| to.at(WORKER_INDEX, worker as i64, read(worker)));
        } else {
            to.value(workers.map(read).sum::<T>());
        }
    }
}

/// The runtimes that are watched.
pub(crate) struct Runtimes {
    per_worker: bool,
    list: Mutex<Vec<Runtime>>,
}

impl Runtimes {
    pub(crate) fn new(options: &Options) -> Self {
        Runtimes { per_worker: options.per_worker, list: Mutex::default() }
    }

    pub(crate) fn watch(&self, name: String, handle: &Handle) {
        let attributes = match name.as_str() {
            "" => Attributes::default(),
            name => Attributes::default().and(RUNTIME_NAME, Arc::<str>::from(name)),
        };
        self.lock().push(Runtime {
            scope: Scope { attributes, epoch: 0 },
            per_worker: self.per_worker,
            flavor: handle.runtime_flavor(),
            metrics: handle.metrics(),
        });
    }

    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Runtime>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
