//! Compares the counting allocator over jemalloc with jemalloc's statistics of the thread, and checks that each allocator is
//! reported only if it is the global one.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

use opentelemetry::global;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, measure};
use tikv_jemalloc_ctl::thread;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static GLOBAL: CountingAllocator<Jemalloc> = CountingAllocator::new(Jemalloc);

/// One test, since the figures belong to the process: a thread that ends gives back what jemalloc has cached for it.
#[test]
fn the_figures_of_jemalloc_and_of_the_counting_allocator_agree() {
    jemalloc_counts_the_same();
    only_the_global_allocator_is_reported();
}

fn jemalloc_counts_the_same() {
    let allocated = thread::allocatedp::read().unwrap();
    let deallocated = thread::deallocatedp::read().unwrap();
    // Size classes of jemalloc, which it does not round up.
    let sizes = [16, 64, 128, 1_024, 4_096, 16_384, 65_536, 1 << 20, 8 << 20];
    let before = (allocated.get(), deallocated.get());
    // Alignments that `malloc` guarantees, and others.
    let aligns = [1, 16, 32, 4_096];
    let ((), stats) = measure(|| {
        for (from, to) in sizes.into_iter().flat_map(|from| sizes.map(|to| (from, to))) {
            for align in aligns.into_iter().filter(|align| from.min(to) >= *align) {
                let layout = |size| Layout::from_size_align(size, align).unwrap();
                unsafe {
                    let ptr = black_box(GLOBAL.alloc(layout(from)));
                    let ptr = black_box(GLOBAL.realloc(ptr, layout(from), to));
                    assert!(ptr.addr().is_multiple_of(align));
                    GLOBAL.dealloc(ptr, layout(to));
                    let ptr = black_box(GLOBAL.alloc_zeroed(layout(to)));
                    assert!(ptr.addr().is_multiple_of(align));
                    GLOBAL.dealloc(ptr, layout(to));
                }
            }
        }
    });
    // 9 sizes to 9 sizes for the first two, 8 to 8, and 5 to 5.
    let all = 2 * 9 * 9 + 8 * 8 + 5 * 5;
    assert_eq!(stats.allocations, 2 * all);
    assert_eq!(stats.reallocations, all);
    assert_eq!(stats.allocated, allocated.get() - before.0);
    assert_eq!(stats.deallocated, deallocated.get() - before.1);
}

fn only_the_global_allocator_is_reported() {
    let metrics = RuntimeMetrics::builder().glibc(true).build(&global::meter("oracles"));
    let read = || {
        let snapshot = metrics.snapshot();
        let names = ["allocated", "active", "resident", "mapped", "retained", "metadata"];
        let value = |name| {
            snapshot.get(&format!("jemalloc.memory.{name}")).unwrap().value().unwrap().as_u64().unwrap()
        };
        for other in ["mimalloc.memory.committed", "glibc.memory.arena"] {
            assert!(snapshot.get(other).is_none(), "{other}");
        }
        names.map(value)
    };
    let [before, ..] = read();
    let held = black_box(vec![1_u8; 32 << 20]);
    let [allocated, active, resident, mapped, ..] = read();
    assert!(allocated >= before + (32 << 20));
    assert!(active >= allocated && resident >= active && mapped >= active);
    drop(held);
}
