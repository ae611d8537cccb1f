//! Starts and ends runtimes, watched meanwhile, and stalls their workers and those of the main runtime.

use std::future::pending;
use std::hint::spin_loop;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::TaskExt;
use support::random::Random;
use tokio::runtime::{Builder, Runtime};

use crate::laws::stall_times;
use crate::soak::{Soak, eventually, more};
use crate::tasks::{CUT_OFF, GUEST, STALLING, yields};

pub fn run(soak: &Soak) {
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    while soak.goes_on() {
        let name = ["io", "work", ""][random.below(3) as usize];
        let mut builder = match random.below(2) {
            0 => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        let runtime = match builder.worker_threads(1 + random.below(3) as usize).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return soak.fail(format!("no runtime: {error}")),
        };
        soak.metrics.watch_runtime(name, runtime.handle());
        let id = runtime.handle().id();
        // Its counters continue those of the last runtime of that name.
        let stalls = || stall_times(&soak.metrics, id).iter().sum::<f64>();
        let before = stalls();
        work(soak, &runtime, &mut random);
        let workers = runtime.metrics().num_workers();
        let last_look = Instant::now();
        let stalled = (stalls() - before).max(0.0);
        end(runtime, &mut random);
        let is_gone = || soak.metrics.runtimes().iter().all(|watched| watched.id != id);
        soak.check(eventually(is_gone), || format!("runtime {id} has ended, and is still watched"));
        let unseen = unseen(last_look.elapsed(), workers);
        let micros = |time: f64| (time * 1e6) as u64;
        soak.stalled_before_end.fetch_add(micros(stalled), Relaxed);
        soak.stalled_unseen.fetch_add(micros(unseen), Relaxed);
        soak.ended_after_stalls.fetch_add(u64::from(stalled > 0.0), Relaxed);
        more(&soak.done.runtimes);
        soak.pause(Duration::from_millis(40));
    }
}

/// Returns how many seconds the workers of a runtime may have been stalled in its end, which took a time. In a short one
/// nothing lasts long enough to be a stall, except on a machine that does not keep up.
fn unseen(end: Duration, workers: usize) -> f64 {
    const SHORT: Duration = Duration::from_millis(50);
    const THRESHOLD: Duration = Duration::from_millis(100);
    if end < SHORT { 0.0 } else { (end + THRESHOLD).as_secs_f64() * workers as f64 }
}

fn work(soak: &Soak, runtime: &Runtime, random: &mut Random) {
    let ends: Vec<_> = (0..20)
        .map(|_| {
            let polls = random.below(3);
            soak.tasks.guests.add(polls + 1);
            runtime.spawn(yields(polls).with_task_name(GUEST))
        })
        .collect();
    let stall = (random.below(8) == 0).then(|| {
        soak.tasks.stalling.add(1);
        runtime.spawn(stall(Duration::from_millis(150 + random.below(200)), random.below(2) == 0))
    });
    for _ in 0..3 {
        soak.tasks.cut_off.add(0);
        runtime.spawn(pending::<()>().with_task_name(CUT_OFF));
    }
    let run = async {
        for end in ends.into_iter().chain(stall) {
            drop(end.await);
        }
    };
    runtime.block_on(run);
}

/// A task that blocks its worker, or computes in one poll.
fn stall(time: Duration, blocks: bool) -> impl Future<Output = ()> + Send {
    let stall = async move {
        if blocks {
            thread::sleep(time);
        } else {
            let end = Instant::now() + time;
            while Instant::now() < end {
                spin_loop();
            }
        }
    };
    stall.with_task_name(STALLING)
}

fn end(runtime: Runtime, random: &mut Random) {
    match random.below(3) {
        0 => drop(runtime),
        1 => runtime.shutdown_timeout(Duration::from_secs(1)),
        _ => runtime.shutdown_background(),
    }
}

/// Stalls a worker of the main runtime now and then.
pub fn run_stalls(soak: &Soak) {
    let mut random = Random(0x9E6C_63D0_9759_B3E5);
    while soak.goes_on() {
        let time = Duration::from_millis(150 + random.below(300));
        let blocks = random.below(4) > 0;
        soak.tasks.stalling.add(1);
        drop(soak.main.block_on(soak.main.spawn(stall(time, blocks))));
        soak.pause(Duration::from_millis(1_500));
    }
}
