//! Measures the cost of counting beside the inner allocator alone and beside other crates that count: instructions under
//! callgrind, time with one and two threads, and a snapshot with few and many threads.
//!
//! `cargo bench -p benches --bench allocator`, with `--profile lto` for fat LTO.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use benches::limit;
use mimalloc::MiMalloc;
use opentelemetry::global;
use opentelemetry_instrumentation_runtime::profile::HeapProfile;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, Sampled};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static GLOBAL: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

/// An allocator under measurement. One program has all of them. It calls them through functions of the form that the
/// compiler generates for a `#[global_allocator]`, which are not inlined either.
trait Subject {
    fn get() -> &'static (impl GlobalAlloc + 'static);
    /// Turns its counting on while `run` runs.
    fn with(run: impl FnOnce()) {
        run();
    }
}

macro_rules! subjects {
    ($($name:ident: $type:ty = $value:expr;)*) => {
        $(
            struct $name;
            impl Subject for $name {
                fn get() -> &'static (impl GlobalAlloc + 'static) {
                    static IT: $type = $value;
                    &IT
                }
            }
        )*
    };
}

subjects! {
    OnSystem: CountingAllocator = CountingAllocator::system();
    OnJemalloc: CountingAllocator<Jemalloc> = CountingAllocator::new(Jemalloc);
    OnMimalloc: CountingAllocator<MiMalloc> = CountingAllocator::new(MiMalloc);
    SampledOnSystem: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();
    SampledOnJemalloc: CountingAllocator<Jemalloc, Sampled> = CountingAllocator::new(Jemalloc).sampled();
    SampledOnMimalloc: CountingAllocator<MiMalloc, Sampled> = CountingAllocator::new(MiMalloc).sampled();
    BareSystem: System = System;
    BareJemalloc: Jemalloc = Jemalloc;
    BareMimalloc: MiMalloc = MiMalloc;
    StatsAlloc: stats_alloc::StatsAlloc<System> = stats_alloc::StatsAlloc::system();
    Cap: cap::Cap<System> = cap::Cap::new(System, usize::MAX);
    PeakAlloc: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;
    AllocTracker: alloc_tracker::Allocator<System> = alloc_tracker::Allocator::system();
}

/// The heap profile of another crate, at the mean of this one.
struct PprofAlloc;

impl Subject for PprofAlloc {
    fn get() -> &'static (impl GlobalAlloc + 'static) {
        static IT: pprof_alloc::PprofAlloc =
            pprof_alloc::PprofAlloc::new().with_pprof_sample_rate(HeapProfile::DEFAULT_MEAN as usize);
        &IT
    }
}

struct Dhat;

impl Subject for Dhat {
    fn get() -> &'static (impl GlobalAlloc + 'static) {
        static IT: dhat::Alloc = dhat::Alloc;
        &IT
    }

    fn with(run: impl FnOnce()) {
        let _profiler = dhat::Profiler::builder().testing().build();
        run();
    }
}

struct TrackingAllocator;

impl Subject for TrackingAllocator {
    fn get() -> &'static (impl GlobalAlloc + 'static) {
        static IT: tracking_allocator::Allocator<System> = tracking_allocator::Allocator::system();
        &IT
    }

    fn with(run: impl FnOnce()) {
        struct Nothing;
        impl tracking_allocator::AllocationTracker for Nothing {
            fn allocated(&self, _: usize, _: usize, _: usize, _: tracking_allocator::AllocationGroupId) {}
            fn deallocated(
                &self,
                _: usize,
                _: usize,
                _: usize,
                _: tracking_allocator::AllocationGroupId,
                _: tracking_allocator::AllocationGroupId,
            ) {
            }
        }
        let _ = tracking_allocator::AllocationRegistry::set_global_tracker(Nothing);
        tracking_allocator::AllocationRegistry::enable_tracking();
        run();
        tracking_allocator::AllocationRegistry::disable_tracking();
    }
}

#[inline(never)]
unsafe fn alloc<S: Subject>(size: usize, align: usize) -> *mut u8 {
    unsafe { S::get().alloc(Layout::from_size_align_unchecked(size, align)) }
}

#[inline(never)]
unsafe fn dealloc<S: Subject>(ptr: *mut u8, size: usize, align: usize) {
    unsafe { S::get().dealloc(ptr, Layout::from_size_align_unchecked(size, align)) }
}

#[inline(never)]
unsafe fn realloc<S: Subject>(ptr: *mut u8, size: usize, align: usize, new_size: usize) -> *mut u8 {
    unsafe { S::get().realloc(ptr, Layout::from_size_align_unchecked(size, align), new_size) }
}

type Alloc = unsafe fn(usize, usize) -> *mut u8;
type Dealloc = unsafe fn(*mut u8, usize, usize);
type Realloc = unsafe fn(*mut u8, usize, usize, usize) -> *mut u8;

const SIZE: usize = 64;
/// The size at which the heap profile is measured.
const SAMPLED: usize = 200;
/// The size of blocks that publish the bytes in use each time.
const LARGE: usize = 64 * 1024;

/// Returns an alignment that the compiler does not know, as in the functions of a `#[global_allocator]`.
fn align() -> usize {
    black_box(8)
}

fn pairs<S: Subject, const SIZE: usize>(count: usize) {
    let align = align();
    // Through pointers, so that no unused argument is optimised away.
    let (alloc, dealloc) = black_box((alloc::<S> as Alloc, dealloc::<S> as Dealloc));
    // The first block begins a page of jemalloc's, and would be the only one that is measured.
    let first = unsafe { alloc(black_box(SIZE), align) };
    for _ in 0..count {
        unsafe { dealloc(black_box(alloc(black_box(SIZE), align)), black_box(SIZE), align) };
    }
    unsafe { dealloc(black_box(first), black_box(SIZE), align) };
}

/// Allocates blocks that begin a page, as samples do.
fn paged<S: Subject>(count: usize) {
    let (alloc, dealloc) = black_box((alloc::<S> as Alloc, dealloc::<S> as Dealloc));
    for _ in 0..count {
        unsafe {
            dealloc(black_box(alloc(black_box(SIZE), black_box(4096))), black_box(SIZE), black_box(4096))
        };
    }
}

/// Allocates without a deallocation.
fn allocs<S: Subject>(count: usize) {
    let align = align();
    let alloc = black_box(alloc::<S> as Alloc);
    for _ in 0..count {
        unsafe { black_box(alloc(black_box(SIZE), align)) };
    }
}

/// Reallocates between sizes that all inner allocators serve in place.
fn reallocs<S: Subject>(count: usize) {
    let align = align();
    let realloc = black_box(realloc::<S> as Realloc);
    let first = unsafe { alloc::<S>(SIZE, align) };
    let mut ptr = unsafe { alloc::<S>(SIZE, align) };
    for _ in 0..count {
        ptr = unsafe { realloc(black_box(ptr), black_box(SIZE), align, black_box(SIZE - 1)) };
        ptr = unsafe { realloc(black_box(ptr), black_box(SIZE - 1), align, black_box(SIZE)) };
    }
    unsafe { dealloc::<S>(ptr, SIZE, align) };
    unsafe { dealloc::<S>(first, SIZE, align) };
}

/// The measurements of a subject, without its type.
struct Entry {
    name: &'static str,
    /// The name of the inner allocator.
    over: Option<&'static str>,
    pairs: fn(usize),
    large_pairs: fn(usize),
    sampled_pairs: fn(usize),
    paged_pairs: fn(usize),
    allocs: fn(usize),
    reallocs: fn(usize),
    with: fn(&mut dyn FnMut()),
}

fn entry<S: Subject>(name: &'static str, over: Option<&'static str>) -> Entry {
    Entry {
        name,
        over,
        pairs: pairs::<S, SIZE>,
        large_pairs: pairs::<S, LARGE>,
        sampled_pairs: pairs::<S, SAMPLED>,
        paged_pairs: paged::<S>,
        allocs: allocs::<S>,
        reallocs: reallocs::<S>,
        with: |run| S::with(run),
    }
}

fn entries() -> Vec<Entry> {
    let system = Some("System");
    vec![
        entry::<BareSystem>("System", None),
        entry::<OnSystem>("CountingAllocator<System>", system),
        entry::<BareJemalloc>("Jemalloc", None),
        entry::<OnJemalloc>("CountingAllocator<Jemalloc>", Some("Jemalloc")),
        entry::<BareMimalloc>("MiMalloc", None),
        entry::<OnMimalloc>("CountingAllocator<MiMalloc>", Some("MiMalloc")),
        entry::<SampledOnSystem>("CountingAllocator<System, Sampled>", Some("CountingAllocator<System>")),
        entry::<SampledOnJemalloc>(
            "CountingAllocator<Jemalloc, Sampled>",
            Some("CountingAllocator<Jemalloc>"),
        ),
        entry::<SampledOnMimalloc>(
            "CountingAllocator<MiMalloc, Sampled>",
            Some("CountingAllocator<MiMalloc>"),
        ),
        entry::<AllocTracker>("alloc_tracker 0.7", system),
        entry::<StatsAlloc>("stats_alloc 0.1", system),
        entry::<Cap>("cap 0.1", system),
        entry::<PeakAlloc>("peak_alloc 0.3", system),
        entry::<TrackingAllocator>("tracking-allocator 0.4", system),
        entry::<PprofAlloc>("pprof-alloc 0.6", system),
        entry::<Dhat>("dhat 0.3", system),
    ]
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, flag, name, what, count] = arguments.as_slice()
        && flag == "--under-callgrind"
    {
        if name == "frames" {
            HeapProfile::start(1).expect("a heap profile");
            at_depth(what.parse().expect("a depth"), count.parse().expect("a count"));
            return ExitCode::SUCCESS;
        }
        let entry = entries().into_iter().find(|entry| entry.name == name).expect("a subject");
        let run = match what.as_str() {
            "pairs" => entry.pairs,
            "allocs" => entry.allocs,
            "sampled" | "unsampled" => entry.sampled_pairs,
            "paged" => entry.paged_pairs,
            _ => entry.reallocs,
        };
        let count = count.parse().expect("a count");
        if what == "sampled" {
            HeapProfile::start(HeapProfile::DEFAULT_MEAN).expect("a heap profile");
        }
        (entry.with)(&mut || run(count));
        return ExitCode::SUCCESS;
    }
    let within = instructions() & sampling();
    times();
    large();
    snapshots();
    frame_times();
    if within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns the instructions of one operation: the difference of two runs, without the start and the end of the program.
fn instructions_of(name: &str, what: &str) -> Option<f64> {
    instructions_of_many(name, what, 51_000)
}

fn instructions_of_many(name: &str, what: &str, many: usize) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let run = |count: usize| {
        let arguments = ["--under-callgrind", name, what, &count.to_string()];
        Some(benches::callgrind(&program, &arguments)?.0)
    };
    const FEW: usize = 1_000;
    Some((run(many)? - run(FEW)?) / (many - FEW) as f64)
}

/// Prints the table and returns true if the limits are kept.
fn instructions() -> bool {
    println!("Instructions under callgrind for {SIZE} bytes, and those above the inner allocator");
    println!("{:<38}{:>14}{:>10}{:>12}{:>10}", "", "alloc+dealloc", "added", "realloc", "added");
    let mut measured: Vec<(&str, f64, f64)> = Vec::new();
    let mut within = true;
    let mut split = Vec::new();
    for entry in entries() {
        let (Some(pair), Some(two)) =
            (instructions_of(entry.name, "pairs"), instructions_of(entry.name, "reallocs"))
        else {
            println!("skipped: valgrind is not installed");
            return true;
        };
        let realloc = two / 2.0;
        match measured.iter().find(|(name, ..)| Some(*name) == entry.over) {
            Some((_, bare_pair, bare_realloc)) => {
                let (more, more_realloc) = (pair - bare_pair, realloc - bare_realloc);
                println!("{:<38}{pair:>14.1}{more:>10.1}{realloc:>12.1}{more_realloc:>10.1}", entry.name);
                let ours = entry.name.starts_with("CountingAllocator");
                if let Some(limit) = entry.over.filter(|_| ours).map(limit::of) {
                    let exceeds = |(most, most_realloc)| more > most || more_realloc > most_realloc;
                    if exceeds(limit.aim) {
                        let (most, most_realloc) = limit.aim;
                        println!("^ misses the aim of {most} for a pair and {most_realloc} for a realloc");
                    }
                    within &= !exceeds(limit.bound);
                }
                if ours {
                    split.push((entry.name, entry.over, more));
                }
            }
            None => println!("{:<38}{pair:>14.1}{:>10}{realloc:>12.1}", entry.name, ""),
        }
        measured.push((entry.name, pair, realloc));
    }
    println!("\nThe part of each call");
    for (name, over, more) in split {
        let of = |name| instructions_of(name, "allocs").unwrap_or(f64::NAN);
        let alloc = of(name) - over.map_or(0.0, of);
        println!("{name:<28}{alloc:>8.1} to allocate{:>8.1} to deallocate", more - alloc);
    }
    println!();
    within
}

/// Prints what heap profiles cost while they run, and returns true if the limits are kept.
fn sampling() -> bool {
    // Enough for some hundred samples.
    const MANY: usize = 1_000_000;
    let in_a_sample = |added: f64| added * HeapProfile::DEFAULT_MEAN as f64 / SAMPLED as f64;
    println!(
        "Instructions that a heap profile at a mean of 512 KiB adds to a pair of {SAMPLED} bytes, and to a sample"
    );
    let row = |name: &str, added: f64| println!("{name:<60}{added:>10.1}{:>12.0}", in_a_sample(added));
    let mut within = true;
    for inner in ["System", "Jemalloc", "MiMalloc"] {
        let name = format!("CountingAllocator<{inner}, Sampled>");
        let of = |what| instructions_of_many(&name, what, MANY);
        let (Some(on), Some(off)) = (of("sampled"), of("unsampled")) else { return true };
        row(&name, on - off);
        within &= on - off <= limit::SAMPLING_PAIR && in_a_sample(on - off) <= limit::SAMPLE;
    }
    // Looks for a sample in vain, since the block begins a page.
    let paged = |name| instructions_of(name, "paged").unwrap_or(f64::NAN);
    let in_vain = paged("CountingAllocator<System, Sampled>") - paged("CountingAllocator<System>");
    if let (Some(on), Some(off)) = (of_jemalloc("prof:true,lg_prof_sample:19"), of_jemalloc("prof:false")) {
        row("jemalloc's own profile", on - off);
    }
    let rival = |name, count| {
        Some(
            instructions_of_many(name, "unsampled", count)?
                - instructions_of_many("System", "unsampled", count)?,
        )
    };
    if let Some(added) = rival("pprof-alloc 0.6", MANY) {
        row("pprof-alloc 0.6, above System", added);
    }
    if let Some(added) = rival("dhat 0.3", 11_000) {
        row("dhat 0.3, above System, which samples each block", added);
    }
    println!(
        "A block of the program that begins a page, no profile running: {in_vain:.1} instructions to a pair"
    );
    if let (Some(deep), Some(shallow)) = (frames(60), frames(20)) {
        println!("A frame of a stack that is known: {:.0} instructions", (deep - shallow) / 40.0);
    }
    println!();
    within
}

/// Returns the instructions of a pair over jemalloc alone with these settings.
fn of_jemalloc(settings: &str) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let settings = [("_RJEM_MALLOC_CONF", settings)];
    let run = |count: usize| {
        let arguments = ["--under-callgrind", "Jemalloc", "unsampled", &count.to_string()];
        Some(benches::callgrind_with(&program, &arguments, &settings)?.0)
    };
    Some((run(1_000_000)? - run(1_000)?) / 999_000.0)
}

/// Returns the instructions of a sample at a depth of so many frames.
fn frames(depth: usize) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let run = |count: usize| {
        let arguments = ["--under-callgrind", "frames", &depth.to_string(), &count.to_string()];
        Some(benches::callgrind(&program, &arguments)?.0)
    };
    Some((run(2_000)? - run(1_000)?) / 1_000.0)
}

/// Takes samples at a depth of so many frames.
#[inline(never)]
fn at_depth(depth: usize, count: usize) {
    if depth == 0 {
        pairs::<SampledOnSystem, SAMPLED>(count);
    } else {
        at_depth(black_box(depth - 1), count);
    }
    black_box(depth);
}

/// Measures a sample in time at two depths in turn, and the difference of a frame: the limit is 40 ns.
fn frame_times() {
    const COUNT: usize = 2_000;
    const ROUNDS: usize = 101;
    let heap_profile = HeapProfile::start(1).expect("a heap profile");
    let time = |depth: usize| {
        let start = Instant::now();
        at_depth(depth, COUNT);
        start.elapsed().as_nanos() as f64 / COUNT as f64
    };
    let rounds: Vec<_> = (0..ROUNDS).map(|_| [20, 60].map(time)).collect();
    heap_profile.stop();
    let of = |value: fn(&[f64; 2]) -> f64| rounds.iter().map(value).collect::<Vec<_>>();
    let (shallow, deep, frame) =
        (of(|round| round[0]), of(|round| round[1]), of(|round| (round[1] - round[0]) / 40.0));
    println!(
        "Nanoseconds of an allocation of {SAMPLED} bytes that is a sample, with its deallocation, median of {ROUNDS} rounds"
    );
    println!("20 calls deep {:.0}, 60 calls deep {:.0}", quantile(&shallow, 0.5), quantile(&deep, 0.5));
    println!(
        "a frame {:.1}, the middle half of the rounds {:.1} to {:.1}",
        quantile(&frame, 0.5),
        quantile(&frame, 0.25),
        quantile(&frame, 0.75)
    );
}

/// Returns the nanoseconds of a pair while a number of threads make them.
fn time(pairs: fn(usize), threads: usize) -> f64 {
    const COUNT: usize = 1_000_000;
    let barrier = &Barrier::new(threads);
    let longest = thread::scope(|scope| {
        let run = move || {
            barrier.wait();
            let start = Instant::now();
            pairs(COUNT);
            start.elapsed()
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        all.into_iter().map(|thread| thread.join().expect("a time")).max()
    });
    longest.unwrap_or_default().as_nanos() as f64 / COUNT as f64
}

fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

/// Measures the subjects in turn, so that other work on the machine affects all of them.
fn times() {
    const ROUNDS: usize = 21;
    let entries: Vec<_> = entries().into_iter().filter(|entry| !entry.name.starts_with("dhat")).collect();
    let mut nanoseconds = vec![[Vec::new(), Vec::new()]; entries.len()];
    for _ in 0..ROUNDS {
        for (entry, samples) in entries.iter().zip(&mut nanoseconds) {
            (entry.with)(&mut || {
                for (threads, samples) in [1, 2].into_iter().zip(samples.iter_mut()) {
                    samples.push(time(entry.pairs, threads));
                }
            });
        }
    }
    println!("Nanoseconds for an alloc+dealloc pair of {SIZE} bytes, median of {ROUNDS} rounds in turn;");
    println!(
        "those above the inner allocator in the same round, with half the width of the middle half of the rounds"
    );
    println!("{:<38}{:>10}{:>16}{:>12}{:>16}", "", "1 thread", "added", "2 threads", "added");
    for (entry, samples) in entries.iter().zip(&nanoseconds) {
        let bare = entries.iter().position(|other| Some(other.name) == entry.over);
        print!("{:<38}", entry.name);
        for (threads, width) in [(0, 10), (1, 12)] {
            let own = &samples[threads];
            let more = bare.map_or(String::new(), |bare| {
                let bare = &nanoseconds[bare][threads];
                let more: Vec<_> = own.iter().zip(bare).map(|(own, bare)| own - bare).collect();
                let spread = (quantile(&more, 0.75) - quantile(&more, 0.25)) / 2.0;
                format!("{:.1} ± {spread:.1}", quantile(&more, 0.5))
            });
            print!("{:>width$.1}{more:>16}", quantile(own, 0.5));
        }
        println!();
    }
    println!();
}

/// Measures large blocks over `System`: the fastest of several rounds in turn.
fn large() {
    println!("Nanoseconds for an alloc+dealloc pair of {LARGE} bytes, the least of 9 rounds in turn");
    let entries: Vec<_> = entries().into_iter().take(2).collect();
    for threads in [1, 2] {
        let rounds = (0..9).map(|_| [0, 1].map(|index: usize| time(entries[index].large_pairs, threads)));
        let [bare, counted] =
            rounds.fold([f64::MAX; 2], |least, round| [0, 1].map(|i| least[i].min(round[i])));
        println!("{threads} threads: {} {bare:.1}, {} {counted:.1}", entries[0].name, entries[1].name);
    }
    println!();
}

/// Measures a snapshot of the allocator's counters with few and many live threads.
fn snapshots() {
    let metrics = RuntimeMetrics::builder().process(false).build(&global::meter("bench"));
    let time = || {
        let once = || {
            let start = Instant::now();
            black_box(metrics.snapshot());
            start.elapsed().as_nanos() as f64
        };
        quantile(&(0..101).map(|_| once()).collect::<Vec<_>>(), 0.5)
    };
    println!("A snapshot without `process.*`");
    let mut first = None;
    for threads in [1, 100, 1_000] {
        let ready = &Barrier::new(threads);
        let end = &Barrier::new(threads);
        let taken = thread::scope(|scope| {
            for _ in 1..threads {
                let live = || {
                    drop(black_box(Box::new(0_u8)));
                    ready.wait();
                    end.wait();
                };
                thread::Builder::new().stack_size(32 * 1024).spawn_scoped(scope, live).expect("a thread");
            }
            ready.wait();
            let taken = time();
            end.wait();
            taken
        });
        let (least, few) = *first.get_or_insert((taken, threads));
        let each = (taken - least) / (threads - few).max(1) as f64;
        println!(
            "{threads:>6} live threads {:>10.1} us, {each:.0} ns for each further thread",
            taken / 1_000.0
        );
    }
}
