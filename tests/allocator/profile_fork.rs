//! A child after `fork`, while other threads take samples: it can free sampled blocks, and its profile continues.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]

use std::alloc::System;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile, Profile};
use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};

#[path = "../support/fork.rs"]
mod fork;

#[global_allocator]
static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

/// Returns the numbers of objects allocated and in use, over all samples.
fn objects(profile: &Profile) -> (i64, i64) {
    let sum = |index: usize| profile.samples().iter().map(|sample| sample.values()[index]).sum();
    (sum(0), sum(2))
}

fn fork_and_work() {
    let held: Vec<Vec<u8>> = (0..2_000).map(|_| vec![7_u8; 200]).collect();
    let before = objects(&profile::heap());
    fork::child(|| {
        let kept = held.iter().flatten().all(|byte| *byte == 7);
        drop(held);
        let freed = objects(&profile::heap());
        let more = black_box(vec![vec![1_u8; 200]; 2_000]);
        let after = objects(&profile::heap());
        [kept, freed.1 + 1_500 < before.1, after.0 > freed.0 + 1_500, more.len() == 2_000]
    });
}

#[test]
fn the_profile_of_a_child_continues() {
    let heap_profile = HeapProfile::start(20).unwrap();
    let running = &AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while running.load(Ordering::Relaxed) {
                    drop(black_box(vec![vec![0_u8; 50]; 20]));
                }
            });
        }
        // The fork may interrupt the threads anywhere, hence several children.
        (0..10).for_each(|_| fork_and_work());
        running.store(false, Ordering::Relaxed);
    });
    heap_profile.stop();
}
