//! Measures stacks and the CPU profile, beside the `pprof` crate in the same run: the time of a waiting thread's stack, of
//! a frame and of the signal handler, the CPU time of a profile at 100 Hz, frames a sample, and the share of CPU time that
//! samples account for.
//!
//! `cargo bench -p benches --bench profile`

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("profiles need Linux");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::hint::black_box;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::thread::{self, JoinHandle};
    use std::time::{Duration, Instant};

    use opentelemetry_instrumentation_runtime::profile;

    const DEPTH: usize = 32;
    const FREQUENCY: i32 = 100;
    const ROUNDS: usize = 5;
    const ROUND: Duration = Duration::from_secs(3);

    pub(crate) fn main() {
        waiting_threads();
        println!();
        for (name, work) in
            [("two busy threads", busy as Work), ("four threads that start others of 30 ms", storm)]
        {
            println!("{name}, {ROUNDS} rounds of {ROUND:?} each:");
            compare(work);
            println!();
        }
    }

    fn cpu_time(clock: libc::clockid_t) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes to a structure of this function.
        assert_eq!(unsafe { libc::clock_gettime(clock, &mut time) }, 0);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// Calls a function from so many frames.
    #[inline(never)]
    fn at_depth(depth: usize, call: &dyn Fn()) {
        if depth == 0 {
            call()
        } else {
            at_depth(depth - 1, call)
        }
        black_box(());
    }

    /// The stacks of threads that wait, at two depths.
    fn waiting_threads() {
        const THREADS: usize = 20;
        const DEPTHS: [usize; 2] = [8, 48];
        let [few, many] = DEPTHS.map(|depth| {
            let is_over = Arc::new(AtomicBool::new(false));
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    let is_over = Arc::clone(&is_over);
                    thread::spawn(move || {
                        at_depth(depth, &|| {
                            while !is_over.load(Relaxed) {
                                thread::park();
                            }
                        });
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(100));
            let once = |_| {
                let start = Instant::now();
                let profile = profile::threads();
                let time = start.elapsed();
                assert!(profile.total() > THREADS as i64, "{profile}");
                time
            };
            let mut times: Vec<Duration> = (0..200).map(once).collect();
            times.sort_unstable();
            is_over.store(true, Relaxed);
            for thread in threads {
                thread.thread().unpark();
                thread.join().unwrap();
            }
            [times[0], times[times.len() / 2]].map(|time| time.as_secs_f64() * 1e6 / THREADS as f64)
        });
        let frame = |index: usize| (many[index] - few[index]) * 1000.0 / (DEPTHS[1] - DEPTHS[0]) as f64;
        println!("the stack of a waiting thread        least     median");
        println!("  {:2} calls deep, us          {:10.1} {:10.1}   (aim: 1000)", DEPTHS[0], few[0], few[1]);
        println!("  {:2} calls deep, us          {:10.1} {:10.1}", DEPTHS[1], many[0], many[1]);
        println!("  a frame more, ns           {:10.0} {:10.0}", frame(0), frame(1));
    }

    type Work = fn(Arc<AtomicBool>) -> Vec<JoinHandle<Gaps>>;

    /// The interruptions of a thread that reads its own clock of CPU time all the time, so that waiting for a CPU is none.
    #[derive(Clone, Copy, Default)]
    struct Gaps {
        time: Duration,
        /// The CPU time in which they were found.
        among: Duration,
    }

    impl Gaps {
        /// Shorter ones are cache misses, longer ones are the machine's.
        const KINDS: std::ops::Range<Duration> = Duration::from_nanos(1_500)..Duration::from_micros(300);

        fn watch(until: &dyn Fn() -> bool) -> Self {
            let mut gaps = Gaps::default();
            let start = cpu_time(libc::CLOCK_THREAD_CPUTIME_ID);
            let mut last = start;
            while !until() {
                let now = cpu_time(libc::CLOCK_THREAD_CPUTIME_ID);
                let gap = now - last;
                if Self::KINDS.contains(&gap) {
                    gaps.time += gap;
                }
                last = now;
            }
            gaps.among = cpu_time(libc::CLOCK_THREAD_CPUTIME_ID) - start;
            gaps
        }

        /// Returns their share of the CPU time.
        fn share(self) -> f64 {
            self.time.as_secs_f64() / self.among.as_secs_f64()
        }
    }

    fn busy(is_over: Arc<AtomicBool>) -> Vec<JoinHandle<Gaps>> {
        let start = |_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                let gaps = std::cell::Cell::new(Gaps::default());
                at_depth(DEPTH, &|| gaps.set(Gaps::watch(&|| is_over.load(Relaxed))));
                gaps.get()
            })
        };
        (0..2).map(start).collect()
    }

    fn storm(is_over: Arc<AtomicBool>) -> Vec<JoinHandle<Gaps>> {
        let start = |_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                while !is_over.load(Relaxed) {
                    thread::scope(|scope| {
                        scope.spawn(|| {
                            at_depth(DEPTH, &|| {
                                let mut calls = 0_u32;
                                while cpu_time(libc::CLOCK_THREAD_CPUTIME_ID) < Duration::from_millis(30) {
                                    calls = black_box(calls.wrapping_add(1));
                                }
                            });
                        });
                    });
                }
                Gaps::default()
            })
        };
        (0..4).map(start).collect()
    }

    /// The result of a profile.
    #[derive(Default)]
    struct Taken {
        samples: f64,
        frames: f64,
        accounted: f64,
        /// The CPU time of the thread that takes the profile.
        spent: f64,
        /// What the profile says of the time of its handler.
        handler: Option<String>,
    }

    fn nothing() -> Taken {
        thread::sleep(ROUND);
        Taken::default()
    }

    fn ours() -> Taken {
        let before = cpu_time(libc::CLOCK_THREAD_CPUTIME_ID);
        let profile = profile::cpu(ROUND).unwrap();
        let spent = (cpu_time(libc::CLOCK_THREAD_CPUTIME_ID) - before).as_secs_f64();
        let comment =
            profile.comments().find_map(|comment| comment.strip_prefix("each sample took its thread "));
        let handler = comment.and_then(|comment| comment.split_once(')')).map(|(time, _)| format!("{time})"));
        let mut taken = Taken { spent, handler, ..Taken::default() };
        for sample in profile.samples().iter().filter(|sample| !sample.stack().is_empty()) {
            let [count, nanos] = [0, 1].map(|index| sample.values()[index] as f64);
            taken.samples += count;
            taken.frames += count * sample.stack().len() as f64;
            taken.accounted += nanos / 1e9;
        }
        taken
    }

    fn theirs() -> Taken {
        let guard = pprof::ProfilerGuard::new(FREQUENCY).unwrap();
        thread::sleep(ROUND);
        let report = guard.report().build_unresolved().unwrap();
        let mut taken = Taken::default();
        for (frames, count) in &report.data {
            taken.samples += *count as f64;
            taken.frames += *count as f64 * frames.frames.len() as f64;
        }
        taken.accounted = taken.samples / f64::from(FREQUENCY);
        taken
    }

    fn compare(work: Work) {
        println!(
            "                       frames a sample   accounted   in the thread, us a sample   profiling thread   in all"
        );
        type Take = fn() -> Taken;
        let kinds: [(_, Take); 3] = [("no profile", nothing), ("this library", ours), ("pprof 0.15", theirs)];
        let mut sums = [const { (Vec::new(), Vec::new()) }; 3];
        for _ in 0..ROUNDS {
            for ((_, take), (gaps, results)) in kinds.iter().zip(&mut sums) {
                let is_over = Arc::new(AtomicBool::new(false));
                let threads = work(Arc::clone(&is_over));
                thread::sleep(Duration::from_millis(50));
                let before = cpu_time(libc::CLOCK_PROCESS_CPUTIME_ID);
                let taken = take();
                let used = (cpu_time(libc::CLOCK_PROCESS_CPUTIME_ID) - before).as_secs_f64();
                is_over.store(true, Relaxed);
                gaps.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
                results.push((taken, used));
            }
        }
        let share = |gaps: &Vec<Gaps>| {
            let mut shares: Vec<f64> =
                gaps.iter().filter(|gaps| !gaps.among.is_zero()).map(|gaps| gaps.share()).collect();
            shares.sort_unstable_by(f64::total_cmp);
            shares.get(shares.len() / 2).copied()
        };
        let without = share(&sums[0].0);
        for ((name, _), (gaps, results)) in kinds.iter().zip(&sums).skip(1) {
            let sum = |each: fn(&Taken) -> f64| results.iter().map(|(taken, _)| each(taken)).sum::<f64>();
            let used: f64 = results.iter().map(|(_, used)| used).sum();
            let frames = sum(|taken| taken.frames) / sum(|taken| taken.samples);
            // What the profiling thread uses itself is not to be accounted for.
            let profiled = used - sum(|taken| taken.spent);
            let accounted = sum(|taken| taken.accounted) / profiled * 100.0;
            let spent = sum(|taken| taken.spent) / used * 100.0;
            print!("  {name:20} {frames:15.1} {accounted:9.1} %");
            match without.zip(share(gaps)) {
                Some((without, with)) => {
                    let in_threads = (with - without) * 100.0;
                    let each = (with - without) * profiled / sum(|taken| taken.samples) * 1e6;
                    println!(" {each:28.1} {spent:16.2} % {:6.2} %", spent + in_threads);
                }
                None => println!(" {:28} {spent:16.2} %", ""),
            }
            let handlers: Vec<_> = results.iter().filter_map(|(taken, _)| taken.handler.as_deref()).collect();
            if !handlers.is_empty() {
                println!("    of which the handler of the signal, in each round: {}", handlers.join(", "));
            }
        }
        println!("  aims of this library:    accounted: 95 %, a sample: 10 us, in all: 0.5 %");
    }
}
