//! Finds out if the machine kept up with a test. A test that measures time repeats an attempt in which it did not.

use std::collections::HashMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait of a thread for a CPU in an attempt that counts.
const LIMIT: Duration = Duration::from_millis(50);

/// The most attempts before the test fails.
const ATTEMPTS: u32 = 20;

/// Repeats an attempt that fails while the system keeps threads of this process waiting for a CPU. An attempt that fails
/// on a machine that keeps up fails the test at once. Tests of one process take turns, since each measures time.
pub fn repeat_when_late(attempt: impl Fn()) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for number in 1.. {
        let delays = Delays::start();
        let result = catch_unwind(AssertUnwindSafe(&attempt));
        let longest = delays.stop();
        match result {
            Ok(()) => return,
            Err(failure) if longest < LIMIT || number == ATTEMPTS => resume_unwind(failure),
            Err(_) => eprintln!("a thread waited for a CPU for {longest:?}: once more"),
        }
    }
}

/// Returns the CPU time of the calling thread.
#[cfg(target_os = "linux")]
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to a structure of this function.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Follows how long the threads of this process wait for a CPU.
struct Delays {
    stop: mpsc::Sender<()>,
    sampler: thread::JoinHandle<Duration>,
}

impl Delays {
    const INTERVAL: Duration = Duration::from_millis(10);

    fn start() -> Self {
        let (stop, stopped) = mpsc::channel();
        let sampler = thread::spawn(move || {
            let before = read();
            let mut longest = Duration::ZERO;
            loop {
                let start = Instant::now();
                let is_over = stopped.recv_timeout(Self::INTERVAL) != Err(RecvTimeoutError::Timeout);
                // Without a report of the system, only the delay of this thread is known.
                longest = longest.max(start.elapsed().saturating_sub(Self::INTERVAL));
                for (thread, delay) in read() {
                    let before = before.get(&thread).copied().unwrap_or_default();
                    longest = longest.max(delay.saturating_sub(before));
                }
                if is_over {
                    return longest;
                }
            }
        });
        Delays { stop, sampler }
    }

    /// Returns the longest time for which one thread has waited in all.
    fn stop(self) -> Duration {
        drop(self.stop);
        self.sampler.join().expect("it does not panic")
    }
}

/// Returns how long each thread has waited for a CPU so far. A thread that ends meanwhile is left out.
fn read() -> HashMap<String, Duration> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return HashMap::new() };
    let delay = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("schedstat")).ok()?;
        let nanos = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some((entry.file_name().into_string().ok()?, Duration::from_nanos(nanos)))
    };
    threads.flatten().filter_map(delay).collect()
}
