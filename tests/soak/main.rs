//! Runs everything at once for as long as asked: allocations, tasks, runtimes that come and go, stalls, profiles, readers and
//! exports to collectors that fail in all ways. Meanwhile it samples what the process uses, and at the end it checks that
//! the laws between the metrics hold, that the counts are those of the program's own tallies, that nothing grows, and that
//! nothing is left.
//!
//! `cargo run --all-features --example soak -- --for 3m`. It exits with 1 if a law is broken.

mod broken;
mod exports;
mod figures;
mod laws;
mod memory;
mod profiles;
mod readers;
mod runtimes;
mod soak;
mod tally;
mod tasks;

use std::any::Any;
use std::panic;
use std::process::{self, ExitCode};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::metrics::MeterProvider;
use opentelemetry::metrics::noop::NoopMeterProvider;
use opentelemetry_instrumentation_runtime::RuntimeMetrics;
use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile, Stall};

use figures::{Figures, Series, thread_names};
use soak::{Soak, eventually, more};

/// The shortest and the longest round. Between two rounds the process rests. The warm-up is half a round.
const ROUND: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// How long an activity may take to end after a phase.
const END: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let time = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--for", time] => humantime::parse_duration(time).ok(),
        [] => Some(Duration::from_secs(180)),
        _ => None,
    };
    let Some(time) = time else {
        eprintln!("usage: soak [--for 3m]");
        return ExitCode::from(2);
    };
    figures::keep_no_free_memory();
    let failures = run(time);
    if failures.is_empty() {
        println!("\nall laws held");
        return ExitCode::SUCCESS;
    }
    println!("\n{} failures", failures.len());
    failures.iter().for_each(|failure| println!("- {failure}"));
    ExitCode::FAILURE
}

/// Soaks for a time and returns the failures.
fn run(time: Duration) -> Vec<String> {
    let threads_at_start = thread_names().len();
    // From the start, so that its samples stand for the whole heap.
    let heap_profile = HeapProfile::start(HeapProfile::DEFAULT_MEAN);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![format!("no runtime: {error}")],
    };
    let handled: Arc<OnceLock<Weak<Soak>>> = Arc::default();
    let handler = Arc::clone(&handled);
    let builder = RuntimeMetrics::builder().disk_io(true).size_classes(true).task_scheduled_time(true);
    let metrics = builder
        .runtime("main", runtime.handle())
        .on_stall(move |stall| handle(handler.get().and_then(Weak::upgrade).as_deref(), stall))
        .build(&NoopMeterProvider::new().meter("soak"));
    let soak = Arc::new(Soak::new(metrics, runtime.handle().clone()));
    drop(handled.set(Arc::downgrade(&soak)));
    if let Err(error) = heap_profile {
        soak.fail(format!("no heap profile: {error}"));
    }

    let start = Instant::now();
    let round = (time / 12).clamp(ROUND.0, ROUND.1);
    let mut series = Series::start();
    phase(&soak, round / 2, &mut series);
    series.forget();
    let mut rests = vec![rest(&soak, None)];
    while soak.failures().is_empty() && (rests.len() == 1 || start.elapsed() + round / 2 < time) {
        let left = time.saturating_sub(start.elapsed());
        phase(&soak, round.min(left), &mut series);
        rests.push(rest(&soak, rests.first()));
    }
    series.check_growth(&soak);
    figures::check_rests(&soak, &rests);
    println!(
        "\nseconds of present stalls by cause: blocked, running, starved: {:?}",
        laws::check_stalls(&soak)
    );
    figures::print_counts(&soak);
    check_end(&soak, runtime, threads_at_start);
    soak.failures()
}

fn handle(soak: Option<&Soak>, stall: &Stall) {
    if let Some(soak) = soak {
        more(&soak.done.stalls_handled);
        // Shown by another thread, since the watcher must not be held up.
        *soak.last_stall.lock().unwrap_or_else(PoisonError::into_inner) = Some(stall.clone());
    }
}

type Activity = fn(&Soak);

/// Runs all activities for a time.
fn phase(soak: &Arc<Soak>, time: Duration, series: &mut Series) {
    let start = Instant::now();
    let mut activities: Vec<(&str, Activity)> = vec![
        ("memory", memory::run),
        ("tasks", tasks::run),
        ("runtimes", runtimes::run),
        ("stalls", runtimes::run_stalls),
        ("profiles", profiles::run),
        ("heap profile", profiles::run_heap),
        ("snapshots", readers::run_snapshots),
        ("providers", readers::run_providers),
        ("debug", readers::run_debug),
        ("exports", exports::run),
    ];
    #[cfg(tokio_unstable)]
    activities.push(("hooked tasks", tasks::run_hooked));
    activities.shrink_to_fit();
    let (ended, ends) = mpsc::channel();
    let mut left: Vec<_> = activities.iter().map(|(name, _)| *name).collect();
    for (name, run) in activities {
        let (own, ended) = (Arc::clone(soak), ended.clone());
        let body = move || {
            let result = panic::catch_unwind(panic::AssertUnwindSafe(|| run(&own)));
            if let Err(panic) = result {
                own.fail(format!("{name} panicked: {}", text(&*panic)));
            }
            let _ = ended.send(name);
        };
        if let Err(error) = thread::Builder::new().name(format!("soak-{name}")).spawn(body) {
            soak.fail(format!("no thread: {error}"));
        }
    }
    drop(ended);
    while start.elapsed() < time && soak.goes_on() {
        soak.pause(series.interval(time).min(time.saturating_sub(start.elapsed())));
        series.take(soak);
    }
    series.print(soak);
    soak.set_stop(true);
    let limit = Instant::now() + END;
    while !left.is_empty() {
        match ends.recv_timeout(limit.saturating_duration_since(Instant::now())) {
            Ok(name) => left.retain(|other| *other != name),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                // Without them, nothing else can be checked.
                println!("{}", profile::threads());
                println!("soak: FAILED: {left:?} did not end within {END:?}");
                process::exit(1);
            }
        }
    }
    if soak.failures().is_empty() {
        soak.set_stop(false);
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}

/// Waits until idle threads and closed connections are gone, checks what is exact then, and returns the figures.
fn rest(soak: &Soak, first: Option<&Figures>) -> Figures {
    match first {
        // For longer than an idle thread of a blocking pool lives.
        None => thread::sleep(Duration::from_secs(12)),
        Some(first) => {
            let is_back = |now: Figures| now.threads <= first.threads && now.descriptors <= first.descriptors;
            eventually(|| is_back(Figures::read(soak)));
        }
    }
    tasks::check(soak);
    laws::check_exactly(soak);
    profiles::check_at_rest(soak);
    Figures::at_rest(soak)
}

/// The counts are exact, and nothing lives on.
fn check_end(soak: &Soak, runtime: tokio::runtime::Runtime, threads_at_start: usize) {
    let width = laws::check_exactly(soak);
    println!("\nallocations of one snapshot, to which the counts are exact: {width}");
    drop(runtime);
    let is_gone = eventually(|| soak.metrics.runtimes().is_empty());
    soak.check(is_gone, || format!("still watched: {:?}", soak.metrics.runtimes()));
    soak.metrics.stop();
    let are_gone = eventually(|| thread_names().len() <= threads_at_start);
    soak.check(are_gone, || format!("threads that are left: {:?}", thread_names()));
}
