//! The allocations of named futures, exact to the byte.

use support::tasks;

use std::future::{poll_fn, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::thread;

use opentelemetry_instrumentation_runtime::{CountingAllocator, TaskExt, measure};
use tasks::{metrics, value};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

fn polled<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn allocate(bytes: usize) {
    drop(black_box(Vec::<u8>::with_capacity(bytes)));
}

/// Returns bytes and allocations.
fn used(name: &str) -> (f64, f64) {
    let snapshot = metrics().snapshot();
    let read = |metric| value(&snapshot, metric, name).expect("it is counted");
    (read("memory.allocated"), read("memory.allocations"))
}

#[test]
fn allocations_of_its_polls_are_counted_for_a_task() {
    allocate(50);
    let mut polls = 0;
    let mut task = pin!(
        poll_fn(move |_| {
            polls += 1;
            allocate(1000);
            if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
        })
        .with_task_name("three times")
    );
    while polled(task.as_mut()).is_pending() {
        allocate(50);
    }
    assert_eq!(used("three times"), (3000.0, 3.0));
}

#[test]
fn allocations_of_an_inner_future_are_not_counted_for_the_outer_one() {
    let innermost = async { allocate(1) }.with_task_name("innermost");
    let inner = async {
        allocate(10);
        innermost.await;
        allocate(10);
    };
    let outer = async {
        allocate(100);
        inner.with_task_name("inner").await;
        allocate(100);
        async { allocate(10) }.with_task_name("inner").await;
        allocate(100);
    };
    assert!(polled(pin!(outer.with_task_name("outer"))).is_ready());
    assert_eq!(used("outer"), (300.0, 3.0));
    assert_eq!(used("inner"), (30.0, 3.0));
    assert_eq!(used("innermost"), (1.0, 1.0));
}

#[test]
fn memory_of_an_inner_future_stays_with_it_in_a_panic() {
    let outer = async {
        let mut inner = Box::pin(
            async {
                allocate(10);
                std::panic::resume_unwind(Box::new(7u32));
            }
            .with_task_name("panicking within"),
        );
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| polled(inner.as_mut())));
        // Both boxes: the future's, and the standard library's for the panic.
        let boxes = size_of_val(&*inner);
        assert_eq!(*caught.unwrap_err().downcast::<u32>().unwrap(), 7);
        boxes
    };
    let Poll::Ready(boxed) = polled(pin!(outer.with_task_name("catching without"))) else {
        panic!("it never waits")
    };
    assert_eq!(used("catching without"), (boxed as f64, 1.0));
    let (bytes, allocations) = used("panicking within");
    assert!(bytes >= 14.0 && allocations >= 2.0, "{bytes} bytes, {allocations} allocations");
}

/// A thread's first poll of a name allocates its counters, which is not counted for the task around it.
#[test]
fn allocations_of_the_library_are_counted_for_no_task() {
    for round in 1..=10 {
        thread::spawn(move || {
            let outer = async {
                for index in 0..round * 20 {
                    ready(()).with_task_name("one of many").await;
                    drop(ready(()).with_task_name(name(index)));
                }
            };
            assert!(polled(pin!(outer.with_task_name("surroundings"))).is_ready());
        })
        .join()
        .unwrap();
    }
    assert_eq!(used("surroundings"), (0.0, 0.0));
    assert_eq!(used("one of many"), (0.0, 0.0));
}

/// A static text, so that the name itself allocates nothing.
fn name(index: usize) -> &'static str {
    const DIGITS: &str = "0123456789abcdefghijklmnopqrstuvwxyz";
    let start = index % DIGITS.len();
    &DIGITS[start..]
}

#[cfg(tokio_unstable)]
#[test]
fn under_the_hooks_memory_is_counted_by_line_or_by_name() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    opentelemetry_instrumentation_runtime::task_hooks(&mut builder)
        .on_before_task_poll(|_| allocate(7))
        .on_after_task_poll(|_| allocate(7));
    let runtime = builder.build().unwrap();
    let task = async {
        allocate(1000);
        let mut yielded = false;
        // Tokio's timer keeps the waker in a list.
        poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        async { allocate(10) }.with_task_name("within a hooked one").await;
        allocate(1000);
    };
    // Two polls. The memory of the hooks belongs to no task.
    let line = line!() + 1;
    let task = runtime.spawn(task);
    runtime.block_on(task).unwrap();
    assert_eq!(used(&format!("tests/task_memory.rs:{line}")), (2000.0, 2.0));
    assert_eq!(used("within a hooked one"), (10.0, 1.0));
}

#[test]
fn a_name_that_is_known_costs_no_allocation() {
    let spawn_and_poll = || {
        let (polled, stats) = measure(|| polled(pin!(ready(7).with_task_name("known"))));
        assert_eq!(polled, Poll::Ready(7));
        stats.allocations
    };
    assert!(spawn_and_poll() > 0, "the first one sets the counters up");
    for _ in 0..1000 {
        assert_eq!(spawn_and_poll(), 0);
    }
}
