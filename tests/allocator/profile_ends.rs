//! Samples in the destructors of threads, which run before and after the allocator's own destructor, and in the code that
//! unwinds.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test says what it expects by panicking")]
#![allow(unsafe_code, reason = "calls the operating system's destructors")]

use std::alloc::System;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::ffi::c_void;
use std::hint::black_box;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile};
use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled};

#[path = "../support/heap.rs"]
mod heap;

use heap::sums;

#[global_allocator]
static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

fn on_thread(name: &str, run: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name(name.to_owned()).spawn(run).unwrap().join().unwrap();
}

/// Blocks that a thread allocates while it lives, and how often its destructors have run.
struct Held(Vec<Vec<u8>>);

static DROPPED: AtomicUsize = AtomicUsize::new(0);

impl Drop for Held {
    fn drop(&mut self) {
        let more: Vec<_> = (1..50).map(|size| vec![size as u8; size * 20]).collect();
        for (size, block) in (1..).zip(&more) {
            assert!(block.iter().all(|byte| *byte == size));
        }
        assert!(self.0.drain(..).flatten().all(|byte| byte == 9));
        DROPPED.fetch_add(1, Ordering::SeqCst);
    }
}

thread_local! {
    static HELD: RefCell<Held> = const { RefCell::new(Held(Vec::new())) };
}

/// Called by the system after all destructors of thread-locals, the allocator's among them.
extern "C" fn last(held: *mut c_void) {
    // SAFETY: it is the box of the thread that ends.
    drop(unsafe { Box::from_raw(held.cast::<Held>()) });
}

fn blocks() -> Vec<Vec<u8>> {
    (0..50).map(|_| vec![9; 300]).collect()
}

fn a_thread_ends() {
    let mut key = 0;
    // SAFETY: the key is writable, and the destructor takes what threads store.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(last)) }, 0);
    on_thread("ends", move || {
        HELD.with_borrow_mut(|held| held.0 = blocks());
        let boxed = Box::into_raw(Box::new(Held(blocks())));
        // SAFETY: the key exists.
        assert_eq!(unsafe { libc::pthread_setspecific(key, boxed.cast()) }, 0);
    });
    assert_eq!(DROPPED.load(Ordering::SeqCst), 2);
    let [objects, bytes, in_use_objects, in_use_bytes] = sums(&profile::heap(), "ends");
    // 100 blocks while it lived, and 49 in the first destructor. The last one runs after the thread has stopped sampling.
    assert!(objects >= 149 && bytes >= 100 * 300 + 20 * 49 * 25, "{objects} objects and {bytes} bytes");
    assert_eq!([in_use_objects, in_use_bytes], [0, 0]);
}

struct Allocates(Vec<u8>);

impl Drop for Allocates {
    fn drop(&mut self) {
        self.0 = black_box(vec![1; 500]);
    }
}

#[inline(never)]
fn fails(depth: usize) {
    let _on_the_way = Allocates(Vec::new());
    if depth == 0 {
        panic::panic_any(vec![depth; 100]);
    }
    fails(black_box(depth - 1));
}

/// Sampling meets the system's unwinder and the library's list of objects and symbols, with every allocation a sample.
fn unwinders_allocate() {
    panic::set_hook(Box::new(|_| drop(black_box(Backtrace::force_capture()))));
    let run = || {
        for _ in 0..20 {
            assert!(panic::catch_unwind(|| fails(5)).is_err());
            assert_eq!(profile::heap().error(), None);
        }
    };
    let spawn = |_| thread::Builder::new().name("unwinds".into()).spawn(run).unwrap();
    let threads: Vec<_> = (0..2).map(spawn).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    _ = panic::take_hook();
    let heap = profile::heap();
    let folded = heap.to_folded();
    assert!(folded.lines().any(|line| line.contains("fails;") && line.contains("drop")), "{folded}");
    let [objects, ..] = sums(&heap, "unwinds");
    assert!(objects > 500, "{objects}");
}

#[test]
fn samples_are_taken_where_threads_end_and_unwind() {
    let heap_profile = HeapProfile::start(1).unwrap();
    a_thread_ends();
    unwinders_allocate();
    heap_profile.stop();
}
