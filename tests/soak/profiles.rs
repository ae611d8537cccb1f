//! Takes profiles of all kinds, encodes and drops them, and compares the heap profile with exact counts while it is
//! stopped, started and changes its mean.

use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use opentelemetry_instrumentation_runtime::profile::{self, Error, HeapProfile, Label, Profile};
use support::random::Random;

use crate::soak::{Soak, more};

const MEANS: [u64; 4] = [16 * 1024, 64 * 1024, 256 * 1024, HeapProfile::DEFAULT_MEAN];
/// How many standard errors an estimate may be off. A normal one is off by more once in 500 million readings.
const SIGMAS: f64 = 6.0;
/// The name of the thread whose blocks are known exactly.
const KNOWN: &str = "known-blocks";

/// Takes profiles of all kinds by turns.
pub fn run(soak: &Soak) {
    for turn in 0_u32.. {
        if !soak.goes_on() {
            return;
        }
        let taken = match turn % 6 {
            0 => Ok(profile::threads()),
            1 => Ok(profile::tasks()),
            2 => Ok(profile::stalls()),
            3 => Ok(profile::allocs()),
            4 => Ok(profile::heap()),
            _ => profile::cpu(Duration::from_secs(1)),
        };
        match taken {
            Ok(taken) => encode(soak, &taken, turn),
            // An exporter or a request takes one.
            Err(Error::AlreadyRunning) => {}
            Err(error) => soak.fail(format!("no profile: {error}")),
        }
        let stall = soak.last_stall.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(stall.map(|stall| stall.to_string()));
        soak.pause(Duration::from_millis(700));
    }
}

fn encode(soak: &Soak, profile: &Profile, turn: u32) {
    // On a busy machine some threads are not given a CPU in time.
    let is_whole = matches!(profile.error(), None | Some(Error::NoAnswer));
    soak.check(is_whole, || format!("{:?}: {:?}", profile.kind(), profile.error()));
    let pprof = profile.to_pprof();
    soak.check(pprof.starts_with(&[0x1f, 0x8b]), || format!("{:?} is no gzip file", profile.kind()));
    if turn.is_multiple_of(5) {
        drop((profile.to_folded(), profile.to_flame_graph()));
    }
    more(&soak.done.profiles);
}

/// Changes the heap profile all the time, and compares it with exact counts.
pub fn run_heap(soak: &Soak) {
    let mut random = Random(0x5851_F42D_4C95_7F2D);
    let mut mean = || MEANS[random.below(MEANS.len() as u64) as usize];
    for turn in 0_u32.. {
        if !soak.goes_on() {
            return;
        }
        let Some(running) = running(soak, mean()) else { return };
        let held = hold(3_000);
        soak.check(running.restart(mean()).is_ok(), || "the heap profile has ended".into());
        check_known(soak, &held);
        soak.pause(Duration::from_millis(800));
        check_known(soak, &held);
        if turn.is_multiple_of(2) {
            running.stop();
            check_known(soak, &held);
            soak.pause(Duration::from_millis(100));
        }
        drop(held);
        check_known(soak, &[]);
    }
}

fn running(soak: &Soak, mean: u64) -> Option<HeapProfile> {
    let running = HeapProfile::running().map_or_else(|| HeapProfile::start(mean), Ok);
    running.map_err(|error| soak.fail(format!("no heap profile: {error}"))).ok()
}

/// Compares the estimate for the whole heap with the exact count, while nothing else moves it and no names are looked up,
/// whose memory is not sampled.
pub fn check_at_rest(soak: &Soak) {
    /// What was in use before the profile started and what was allocated while it was stopped, as far as it is still alive.
    const UNSAMPLED: f64 = 2e6;
    let Some(running) = running(soak, MEANS[1]) else { return };
    soak.check(running.restart(MEANS[1]).is_ok(), || "the heap profile has ended".into());
    let held = hold(20_000);
    check_known(soak, &held);
    let heap = profile::heap();
    let (Some(exact), Some(error)) = (heap.exact_total(), heap.standard_error()) else {
        return soak.fail("the heap profile has no exact total".into());
    };
    soak.check((heap.total() as f64 - exact as f64).abs() <= SIGMAS * error + UNSAMPLED, || {
        format!("the heap profile has {} bytes of {exact}, standard error {error:.0}", heap.total())
    });
    more(&soak.done.heap_checks);
}

/// Blocks that a thread of their own has allocated.
fn hold(count: usize) -> Vec<Vec<u8>> {
    let mut blocks = Vec::with_capacity(count);
    let fill = || {
        // A thread notices a profile and its mean with its next 32 KiB of allocations.
        (0..256).for_each(|_| drop(Vec::<u8>::with_capacity(1024)));
        let mut random = Random(0x94D0_49BB_1331_11EB);
        while blocks.len() < count {
            let size = 1 + if random.below(20) == 0 { random.below(40_000) } else { random.below(1_000) };
            blocks.push(Vec::with_capacity(size as usize));
        }
    };
    thread::scope(|scope| {
        // Without a thread there are no blocks, and none are expected.
        drop(thread::Builder::new().name(KNOWN.into()).spawn_scoped(scope, fill));
    });
    blocks
}

/// Compares the estimate for the blocks of one thread with their sizes.
fn check_known(soak: &Soak, held: &[Vec<u8>]) {
    /// The blocks of the thread's own start, which are freed with its handle.
    const OTHERS: f64 = 4_096.0;
    let exact: usize = held.iter().map(Vec::capacity).sum();
    let heap = profile::heap();
    let is_known = |sample: &&profile::Sample| {
        sample.labels().any(|(key, label)| key == "thread" && *label == Label::from(KNOWN.to_owned()))
    };
    let estimate: i64 = heap.samples().iter().filter(is_known).map(|sample| sample.values()[3]).sum();
    // That of the whole heap, of which this is a part.
    let error = heap.standard_error().unwrap_or_default();
    soak.check((estimate as f64 - exact as f64).abs() <= SIGMAS * error + OTHERS, || {
        format!("the heap profile has {estimate} bytes of a thread with {exact}, standard error {error:.0}")
    });
    more(&soak.done.heap_checks);
}
