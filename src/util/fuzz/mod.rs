//! Calls code with many random inputs: edited true files, and structures made at random.
//!
//! The inputs are the same in each run. `FUZZ_TIMES=100` takes as many times the usual number, `FUZZ_SEED=2` others. A
//! failure prints its seed and its number: `FUZZ_SEED=1 FUZZ_FIRST=4711` begins with that one.

mod edit;
mod memory;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use arbitrary::Unstructured;

pub(crate) use edit::edited;
#[allow(unused_imports, reason = "some builds lack the parsers that need them")]
pub(crate) use edit::{edited_text, overwrite};
pub(crate) use memory::peak;

/// The time after which an input is taken for one that never ends.
const ENDLESS: Duration = Duration::from_secs(120);
/// The random bytes that an input is made of. Further ones are zeros.
const LENGTH: usize = 1024;

/// Calls `test` with `count` inputs, and with more if `FUZZ_TIMES` says so. `test` returns true if the code accepted the
/// input, and panics if a property does not hold.
///
/// Fails if all inputs are accepted or all are rejected, and if an input makes this thread hold more than `max_bytes` of
/// memory. Ends the process if an input takes two minutes.
pub(crate) fn run(
    count: u64,
    max_bytes: usize,
    mut test: impl FnMut(&mut Unstructured<'_>) -> arbitrary::Result<bool>,
) {
    let (seed, first) = (number("FUZZ_SEED"), number("FUZZ_FIRST"));
    let target = thread::current().name().unwrap_or_default().to_owned();
    let mut case = Case::new(target, seed.unwrap_or(1));
    let range = match first {
        Some(first) => first..first + 1,
        None => 0..count * number("FUZZ_TIMES").unwrap_or(1),
    };
    let start = Instant::now();
    let (mut accepted, mut rejected, mut most_bytes) = (0_u64, 0_u64, 0);
    for number in range {
        case.number.store(number, Relaxed);
        let random = random(case.seed, number);
        let (is_accepted, bytes) = peak(|| test(&mut Unstructured::new(&random)));
        assert!(bytes <= max_bytes, "it holds {bytes} bytes of memory");
        most_bytes = most_bytes.max(bytes);
        match is_accepted.unwrap() {
            true => accepted += 1,
            false => rejected += 1,
        }
    }
    println!(
        "fuzz: {}: seed {}, {} inputs in {:.1?}: {accepted} accepted, {rejected} rejected, at most {most_bytes} bytes",
        case.target,
        case.seed,
        accepted + rejected,
        start.elapsed()
    );
    assert!(first.is_some() || accepted > 0 && rejected > 0, "one of the two never happens");
    case.watchdog.take();
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Returns random bytes by the rule of SplitMix64.
fn random(seed: u64, number: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ number.wrapping_mul(0x2545_F491_4F6C_DD1D);
    let mut word = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31).to_le_bytes()
    };
    (0..LENGTH / 8).flat_map(|_| word()).collect()
}

/// The input that is being tried. Says which one it is if that panics or does not end.
struct Case {
    target: String,
    seed: u64,
    number: Arc<AtomicU64>,
    watchdog: Option<Sender<()>>,
}

impl Case {
    fn new(target: String, seed: u64) -> Self {
        let (watchdog, over) = channel::<()>();
        let number = Arc::new(AtomicU64::new(0));
        let case = Case { target, seed, number: Arc::clone(&number), watchdog: Some(watchdog) };
        let name = case.name();
        thread::spawn(move || {
            let mut last = None;
            while over.recv_timeout(ENDLESS) == Err(RecvTimeoutError::Timeout) {
                let now = number.load(Relaxed);
                if last.replace(now) == Some(now) {
                    eprintln!("{name} FUZZ_FIRST={now} does not end");
                    std::process::abort();
                }
            }
        });
        case
    }

    fn name(&self) -> String {
        format!("fuzz: {}: FUZZ_SEED={}", self.target, self.seed)
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{} FUZZ_FIRST={} fails", self.name(), self.number.load(Relaxed));
        }
    }
}
