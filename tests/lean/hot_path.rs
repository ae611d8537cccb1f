//! Repeats one operation that counts, for an emulator or a profiler that counts instructions: the difference of two runs is
//! that of the operations that one of them makes more.
//!
//! `hot_path OPERATION ALLOCATOR COUNT`: `pair` or `realloc` over `system`, `counting` or `sampled`, `poll` of a `plain` or a
//! `named` task, or a `clock` that is the system's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled, TaskExt};

/// With this allocator a poll counts memory too.
#[global_allocator]
static COUNTING: CountingAllocator = CountingAllocator::system();
static SAMPLED: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();
static SYSTEM: System = System;

const SIZE: usize = 64;

/// An allocator whose functions have the form that the compiler generates for a `#[global_allocator]`.
trait Subject {
    fn get() -> &'static (impl GlobalAlloc + 'static);
}

macro_rules! subjects {
    ($($name:ident: $static:ident;)*) => {
        $(
            struct $name;
            impl Subject for $name {
                fn get() -> &'static (impl GlobalAlloc + 'static) {
                    &$static
                }
            }
        )*
    };
}

subjects! {
    OnSystem: SYSTEM;
    Counting: COUNTING;
    Sampling: SAMPLED;
}

#[inline(never)]
#[allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "an allocator with a valid layout")]
unsafe fn alloc<S: Subject>(size: usize, align: usize) -> *mut u8 {
    unsafe { S::get().alloc(Layout::from_size_align_unchecked(size, align)) }
}

#[inline(never)]
#[allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "an allocator with a valid layout")]
unsafe fn dealloc<S: Subject>(ptr: *mut u8, size: usize, align: usize) {
    unsafe { S::get().dealloc(ptr, Layout::from_size_align_unchecked(size, align)) }
}

#[inline(never)]
#[allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "an allocator with a valid layout")]
unsafe fn realloc<S: Subject>(ptr: *mut u8, size: usize, align: usize, new_size: usize) -> *mut u8 {
    unsafe { S::get().realloc(ptr, Layout::from_size_align_unchecked(size, align), new_size) }
}

type Alloc = unsafe fn(usize, usize) -> *mut u8;
type Dealloc = unsafe fn(*mut u8, usize, usize);
type Realloc = unsafe fn(*mut u8, usize, usize, usize) -> *mut u8;

#[allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "blocks are freed with their layout")]
fn pairs<S: Subject>(count: usize) {
    // The compiler knows neither the alignment nor the functions.
    let (align, alloc, dealloc) = black_box((8, alloc::<S> as Alloc, dealloc::<S> as Dealloc));
    for _ in 0..count {
        unsafe { dealloc(black_box(alloc(black_box(SIZE), align)), black_box(SIZE), align) };
    }
}

#[allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "blocks are freed with their layout")]
fn reallocs<S: Subject>(count: usize) {
    let (align, realloc) = black_box((8, realloc::<S> as Realloc));
    let mut ptr = unsafe { alloc::<S>(SIZE, align) };
    for _ in 0..count / 2 {
        ptr = unsafe { realloc(black_box(ptr), black_box(SIZE), align, black_box(SIZE - 1)) };
        ptr = unsafe { realloc(black_box(ptr), black_box(SIZE - 1), align, black_box(SIZE)) };
    }
    unsafe { dealloc::<S>(ptr, SIZE, align) };
}

/// A future that is never ready.
struct Never;

impl Future for Never {
    type Output = ();

    #[inline(never)]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

fn polls(future: impl Future<Output = ()>, count: usize) {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..count {
        assert!(black_box(future.as_mut()).poll(&mut context).is_pending());
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, operation, subject, count] = arguments.as_slice() else {
        panic!("see the beginning of this file")
    };
    let count = count.parse().expect("a number");
    match (operation.as_str(), subject.as_str()) {
        ("pair", "system") => pairs::<OnSystem>(count),
        ("pair", "counting") => pairs::<Counting>(count),
        ("pair", "sampled") => pairs::<Sampling>(count),
        ("realloc", "system") => reallocs::<OnSystem>(count),
        ("realloc", "counting") => reallocs::<Counting>(count),
        ("realloc", "sampled") => reallocs::<Sampling>(count),
        ("poll", "plain") => polls(Never, count),
        ("poll", "named") => polls(Never.with_task_name("hot"), count),
        ("clock", "system") => (0..count).for_each(|_| _ = black_box(Instant::now())),
        _ => panic!("see the beginning of this file"),
    }
}
