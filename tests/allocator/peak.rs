//! The bounds of the peak's error. The counters are those of the whole process, hence one test function.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics};
use opentelemetry_sdk::metrics::SdkMeterProvider;

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

#[test]
fn a_burst_between_two_snapshots_is_seen_to_64_kib_for_each_thread() {
    const THREADS: u64 = 4;
    const BOUND: u64 = (THREADS + 2) * 65_536;
    let provider = SdkMeterProvider::default();
    let metrics = RuntimeMetrics::builder().build(&provider.meter("test"));
    let read = || {
        let snapshot = metrics.snapshot();
        let value = |name| snapshot.get(name).unwrap().value().unwrap().as_u64().unwrap();
        (value("rust.memory.used"), value("rust.memory.peak"))
    };
    _ = read();
    let barrier = &Barrier::new(THREADS as usize);
    // Small blocks, large blocks, growing blocks. Each burst is higher than the one before.
    type Burst<'a> = &'a (dyn Fn() -> Vec<Vec<u8>> + Sync);
    let bursts: [(u64, Burst<'_>); 3] = [
        (1 << 20, &|| (0..1 << 14).map(|_| black_box(Vec::with_capacity(64))).collect()),
        (3 << 20, &|| (0..3).map(|_| black_box(Vec::with_capacity(1 << 20))).collect()),
        (8 << 20, &|| {
            let mut bytes = Vec::with_capacity(1);
            (0..24).for_each(|power| bytes.reserve_exact(1 << power));
            bytes.shrink_to(8 << 20);
            vec![black_box(bytes)]
        }),
    ];
    for (size, burst) in bursts {
        let (before, _) = read();
        let held = thread::scope(|scope| {
            let threads = (0..THREADS).map(|_| {
                scope.spawn(|| {
                    let all = burst();
                    // Every thread holds its blocks now.
                    barrier.wait();
                    let bytes = all.iter().map(|one| one.capacity()).sum::<usize>();
                    let list = all.capacity() * size_of::<Vec<u8>>();
                    drop(all);
                    bytes + list
                })
            });
            threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap() as u64).sum::<u64>()
        });
        assert!(held >= THREADS * size);
        let (after, peak) = read();
        assert!(after < before + BOUND, "the burst is over");
        // `held` does not include the cost of growing and of the threads.
        assert!(peak + BOUND >= before + held, "{peak} is too low after a burst of {held} from {before}");
        assert!(
            peak <= before + 3 * held + BOUND,
            "{peak} is too high after a burst of {held} from {before}"
        );
    }
    // The most that a thread can hold without an update of the peak: single bytes beside growing blocks. The number of
    // threads is high enough to show an error above the bound.
    const MANY: usize = 64;
    let many = &Barrier::new(MANY);
    let (before, peak_before) = read();
    assert!(peak_before < before + (100 << 20), "what follows must be higher");
    let held = thread::scope(|scope| {
        let hold = || {
            let mut bytes: Vec<Box<u8>> = Vec::with_capacity(1 << 18);
            let mut grown: Vec<u8> = black_box(Vec::with_capacity(1));
            // Every thread updates the peak now.
            grown.reserve_exact(100 << 10);
            grown.shrink_to(1);
            drop(black_box(vec![0_u8; 100 << 10]));
            many.wait();
            grown.reserve_exact(black_box(23 << 10));
            bytes.extend((0..47 << 10).map(|_| black_box(Box::new(0_u8))));
            many.wait();
            bytes.len() + grown.capacity() + bytes.capacity() * size_of::<Box<u8>>()
        };
        let threads: Vec<_> = (0..MANY).map(|_| scope.spawn(hold)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap() as u64).sum::<u64>()
    });
    let (_, peak) = read();
    assert!(
        peak + (MANY as u64 + 2) * 65_536 >= before + held,
        "{peak} is too low after {held} in single bytes from {before}"
    );

    // The peak of one thread, exact to its bound.
    let (before, _) = read();
    let (used, peak) = {
        let held = black_box(vec![0_u8; 400 << 20]);
        let now = read();
        drop(held);
        now
    };
    assert!(used >= before + (400 << 20));
    assert!(peak >= used && peak <= used + BOUND);
    assert!(read().1 <= peak + BOUND, "it does not rise with what is freed");
}
