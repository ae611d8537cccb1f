//! Shows that threads share nothing on the hot paths: the atomic read-modify-writes that an event executes, with 1 to 64
//! threads, counted exactly under callgrind, and the time of an event beside that with one thread.
//!
//! `cargo bench -p benches --bench scale`; `-- --counts` counts with 1 and 64 threads alone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::{Future, pending};
use std::hint::black_box;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Barrier, LazyLock};
use std::task::{Context, Waker};
use std::thread;
use std::time::Instant;

use benches::rmw::{self, Executed};
use opentelemetry::global;
use opentelemetry_instrumentation_runtime::profile::HeapProfile;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, Sampled, TaskExt};
use tokio::runtime::Builder;

#[global_allocator]
static GLOBAL: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();
static COUNTING: CountingAllocator = CountingAllocator::system();

const THREADS: [usize; 5] = [1, 2, 4, 16, 64];
/// The events of each thread under callgrind.
const COUNTED: usize = 20_000;
/// The events of each thread while time is measured.
const TIMED: usize = 300_000;

/// The read-modify-writes that an event may have. Those of the cold paths come once in some hundred events.
const LIMIT: f64 = 0.02;
/// The same on a watched runtime, where the library's probe runs now and then, by the clock: callgrind is slow, and a busy
/// machine makes it slower. One for each poll would be more.
const LIMIT_WATCHED: f64 = 0.5;

/// A kind of event.
struct Subject {
    name: &'static str,
    run: fn(usize),
    /// The subject whose read-modify-writes are Tokio's own.
    base: Option<&'static str>,
    with_heap_profile: bool,
}

const fn subject(name: &'static str, run: fn(usize)) -> Subject {
    Subject { name, run, base: None, with_heap_profile: false }
}

const PLAIN: &str = "a plain poll on a runtime";

const SUBJECTS: [Subject; 11] = [
    subject("alloc + dealloc of 64 bytes", |count| pairs(&COUNTING, count)),
    subject("the same, Sampled", |count| pairs(&GLOBAL, count)),
    Subject { with_heap_profile: true, ..subject("the same, a heap profile", |count| pairs(&GLOBAL, count)) },
    subject("256 allocs, then 256 deallocs", |count| batches(&COUNTING, count)),
    subject("the same, Sampled", |count| batches(&GLOBAL, count)),
    Subject {
        with_heap_profile: true,
        ..subject("the same, a heap profile", |count| batches(&GLOBAL, count))
    },
    subject("a named poll", polls),
    subject("a named task that begins and ends", tasks),
    subject(PLAIN, |count| on_runtime(count, false)),
    Subject {
        base: Some(PLAIN),
        ..subject("a named poll on a watched runtime", |count| on_runtime(count, true))
    },
    subject("realloc", reallocs),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, flag, index, threads] = arguments.as_slice()
        && flag == "--under-callgrind"
    {
        let subject = &SUBJECTS[index.parse::<usize>().expect("an index")];
        run(subject, threads.parse().expect("a number of threads"), COUNTED);
        return ExitCode::SUCCESS;
    }
    let counts_alone = arguments.iter().any(|argument| argument == "--counts");
    let threads: &[usize] = if counts_alone { &[1, 64] } else { &THREADS };
    let within = counts(threads);
    if !counts_alone {
        times();
    }
    if within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the read-modify-writes of an event, and returns true if there are next to none.
fn counts(threads: &[usize]) -> bool {
    println!(
        "Atomic read-modify-writes for each event, in the program and (in the C library), by number of threads"
    );
    print!("{:<40}", "");
    threads.iter().for_each(|threads| print!("{threads:>20}"));
    println!();
    let mut within = true;
    let mut bases: Vec<(&str, Vec<f64>)> = Vec::new();
    for (index, subject) in SUBJECTS.iter().enumerate() {
        print!("{:<40}", subject.name);
        let mut row = Vec::new();
        let mut functions = Vec::new();
        for (column, threads) in threads.iter().enumerate() {
            let Some(executed) = executed(index, *threads) else {
                println!("skipped: valgrind is not installed");
                return true;
            };
            let events = (COUNTED * threads) as f64;
            let own = executed.own() as f64 / events;
            let base = bases
                .iter()
                .find(|(name, _)| Some(*name) == subject.base)
                .map_or(0.0, |(_, row)| row[column]);
            print!("{:>12.5} ({:.3})", own - base, executed.others as f64 / events);
            let limit = if subject.base.is_some() { LIMIT_WATCHED } else { LIMIT };
            within &= subject.name == PLAIN || own - base <= limit;
            row.push(own);
            functions = executed.own.into_iter().map(|(name, count)| (count as f64 / events, name)).collect();
        }
        println!();
        functions.sort_by(|a, b| b.0.total_cmp(&a.0));
        if subject.base.is_none() && subject.name != PLAIN {
            functions
                .iter()
                .take(4)
                .for_each(|(share, name)| println!("    1 in {:.0}: {name}", 1.0 / share));
        }
        bases.push((subject.name, row));
    }
    println!();
    within
}

fn executed(index: usize, threads: usize) -> Option<Executed> {
    let program = std::env::current_exe().ok()?;
    let arguments = ["--under-callgrind", &index.to_string(), &threads.to_string()];
    let executed = rmw::count(&program, &arguments, "measured_region")?;
    assert!(executed.instructions > COUNTED as u64, "nothing was measured");
    Some(executed)
}

/// Prints the time of an event, as a multiple of that with one thread for each core.
fn times() {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!("Time of an event, ns with one thread, then as a multiple of it for each core ({cores} cores)");
    for subject in &SUBJECTS {
        print!("{:<40}", subject.name);
        let mut first = None;
        for threads in THREADS {
            let once = || run(subject, threads, TIMED) * threads.min(cores) as f64 / (threads * TIMED) as f64;
            let mut all: Vec<_> = (0..5).map(|_| once()).collect();
            all.sort_by(f64::total_cmp);
            let time = all[all.len() / 2];
            match first {
                None => print!("{time:>12.1}"),
                Some(first) => print!("{:>12.2}", time / first),
            }
            first = first.or(Some(time));
        }
        println!();
    }
}

/// Makes the events on a number of threads at once, and returns the nanoseconds that they took together.
fn run(subject: &Subject, threads: usize, count: usize) -> f64 {
    let profile = subject.with_heap_profile.then(|| HeapProfile::start(HeapProfile::DEFAULT_MEAN));
    let (ready, done) = (&Barrier::new(threads + 1), &Barrier::new(threads + 1));
    let taken = thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(move || {
                // Claims what a thread claims once.
                (subject.run)(1_000);
                ready.wait();
                measured_region(subject.run, count);
                done.wait();
            });
        }
        ready.wait();
        let start = Instant::now();
        done.wait();
        start.elapsed()
    });
    if let Some(Ok(profile)) = profile {
        profile.stop();
    }
    taken.as_nanos() as f64
}

/// What callgrind counts, by this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn measured_region(run: fn(usize), count: usize) {
    run(count);
    black_box(count);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(black_box(size), 8).expect("a layout")
}

fn pairs(allocator: &impl GlobalAlloc, count: usize) {
    for _ in 0..count {
        let layout = layout(64);
        unsafe { allocator.dealloc(black_box(allocator.alloc(layout)), layout) };
    }
}

/// Allocates and frees so much at a time that the bytes in use of the thread move far enough for the peak.
fn batches(allocator: &impl GlobalAlloc, count: usize) {
    const BATCH: usize = 256;
    let mut blocks = [std::ptr::null_mut(); BATCH];
    for _ in 0..count / BATCH {
        let layout = layout(200);
        blocks.iter_mut().for_each(|block| *block = black_box(unsafe { allocator.alloc(layout) }));
        blocks.iter().for_each(|block| unsafe { allocator.dealloc(*block, layout) });
    }
}

fn reallocs(count: usize) {
    let mut block = unsafe { COUNTING.alloc(layout(64)) };
    for _ in 0..count / 2 {
        block = unsafe { COUNTING.realloc(block, layout(64), black_box(60)) };
        block = unsafe { COUNTING.realloc(block, layout(60), black_box(64)) };
    }
    unsafe { COUNTING.dealloc(block, layout(64)) };
}

fn polls(count: usize) {
    let mut context = Context::from_waker(Waker::noop());
    let mut task = pin!(pending::<()>().with_task_name("scale: polls"));
    for _ in 0..count {
        black_box(task.as_mut().poll(&mut context).is_pending());
    }
}

fn tasks(count: usize) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..count {
        let task = pin!(async { black_box(()) }.with_task_name("scale: tasks"));
        black_box(task.poll(&mut context).is_ready());
    }
}

/// Polls on a runtime of the thread's own, with or without a name and a watcher that looks for stalls.
fn on_runtime(count: usize, is_measured: bool) {
    static METRICS: LazyLock<RuntimeMetrics> =
        LazyLock::new(|| RuntimeMetrics::builder().build(&global::meter("bench")));
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let yields = async move {
        for _ in 0..count {
            tokio::task::yield_now().await;
        }
    };
    let task = if is_measured {
        METRICS.watch_runtime("", runtime.handle());
        runtime.spawn(yields.with_task_name("scale: runtime"))
    } else {
        runtime.spawn(yields)
    };
    runtime.block_on(task).expect("no task panics");
}
