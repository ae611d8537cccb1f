//! A program with a known leak, for `leak.rs`: `leaking HOW FILE` leaks, and writes its heap profile to a file.

use std::alloc::System;
use std::hint::black_box;

use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile};
use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};

#[global_allocator]
static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

struct Cache<K, V>(Vec<(K, V)>);

impl<K: Copy + Into<usize>, V: Default + Clone> Cache<K, Vec<V>> {
    #[inline]
    fn remember(&mut self, key: K) {
        self.0.push((key, vec![V::default(); key.into()]));
    }
}

/// Leaks through generic code that is inlined here.
#[inline(never)]
fn leak_into_a_cache() {
    let mut cache = Cache::<u16, Vec<u8>>(Vec::new());
    for _ in 0..20_000 {
        cache.remember(black_box(1000));
    }
    std::mem::forget(black_box(cache));
}

#[inline(never)]
fn leak_directly() {
    for _ in 0..20_000 {
        black_box(Box::leak(Box::new([1_u8; 1000])));
    }
}

/// Allocates far more than is leaked, and frees it.
#[inline(never)]
fn work() {
    for size in 0..40_000 {
        drop(black_box(vec![1_u8; 1000 + size % 1000]));
        drop(black_box(format!("{size} and {size}")));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (how, file) = (std::env::args().nth(1), std::env::args().nth(2));
    if let Err(error) = HeapProfile::start(16 * 1024) {
        println!("error: {error}");
    }
    work();
    match how.as_deref() {
        Some("cache") => leak_into_a_cache(),
        _ => leak_directly(),
    }
    work();
    let heap = profile::heap();
    if let Some(error) = heap.error() {
        println!("empty: {error}");
    }
    heap.comments().for_each(|comment| println!("comment: {comment}"));
    if let Some(file) = file {
        std::fs::write(file, heap.to_pprof())?;
    }
    Ok(())
}
