//! A heap profile without memory left drops samples and counts them. Every block keeps its content.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]

use std::alloc::System;

use opentelemetry_instrumentation_runtime::profile::{self, Error, HeapProfile};
use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};

#[global_allocator]
static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

#[test]
fn samples_are_dropped_and_counted() {
    const BLOCKS: usize = 20_000;
    // No system has so much memory. The program continues, without a profile.
    for bytes in [0, usize::MAX / 2] {
        assert_eq!(HeapProfile::start_bounded(1, bytes).unwrap_err(), Error::NoMemory);
    }
    assert_eq!(profile::heap().error(), Some(&Error::NotRunning));
    assert_eq!(std::hint::black_box(vec![1_u8; 100_000]).len(), 100_000);

    let heap_profile = HeapProfile::start_bounded(1, 256 * 1024).unwrap();
    let block = |index: usize| -> Vec<u8> { (0..64).map(|byte| (index + byte) as u8).collect() };
    let mut blocks: Vec<Vec<u8>> = (0..BLOCKS).map(block).collect();
    let full = profile::heap();
    let comments: Vec<_> = full.comments().collect();
    assert!(comments.iter().any(|comment| comment.contains("samples were dropped")), "{comments:?}");
    let in_use: i64 = full.samples().iter().map(|sample| sample.values()[2]).sum();
    assert!((1_000..BLOCKS as i64).contains(&in_use), "{in_use} of {BLOCKS} blocks");
    blocks.iter_mut().for_each(|block| block.reserve_exact(100));
    for (index, bytes) in blocks.into_iter().enumerate() {
        assert_eq!(bytes, block(index));
    }
    // The table has room again.
    let before = profile::allocs();
    drop(std::hint::black_box(vec![vec![0_u8; 1000]; 100]));
    let objects: i64 =
        profile::allocs().delta(&before).samples().iter().map(|sample| sample.values()[0]).sum();
    assert!(objects >= 100, "{objects}");
    heap_profile.stop();
}
