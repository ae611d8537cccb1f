//! The stacks of workers while they are stalled.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::hint::black_box;
use std::io::{self, Read};
#[cfg(target_env = "gnu")]
use std::net::{Ipv4Addr, ToSocketAddrs, UdpSocket};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::{RuntimeMetrics, TaskExt, profile};
use support::log;
use support::pace::{repeat_when_late, thread_time};
use support::runtimes::{looks, until};
use support::syscalls::{self, Call};
use tokio::runtime::{self, Runtime};

/// One test at a time: what is seen of stalls belongs to the process.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const LONG: Duration = Duration::from_millis(1500);

#[inline(never)]
fn blocks_in_sleep() {
    thread::sleep(LONG);
    black_box(());
}

static LOCK: Mutex<()> = Mutex::new(());

#[inline(never)]
fn blocks_for_a_lock() {
    drop(black_box(LOCK.lock()));
}

#[inline(never)]
fn blocks_in_read(pipe: &mut io::PipeReader) {
    let _ = black_box(pipe.read(&mut [0]));
}

/// Computes for this long, and for a part of it by the thread's own clock, since it may have to wait for a CPU.
fn until_used(time: Duration, mut step: impl FnMut()) {
    let (start, before) = (Instant::now(), thread_time());
    while start.elapsed() < time || thread_time() - before < time / 4 {
        step();
    }
}

#[inline(never)]
fn computes() {
    let mut sum = 0_u64;
    until_used(LONG * 2, || {
        for number in 0..10_000_u64 {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(number));
        }
    });
}

/// Tries every way to match `a?` so many times, and `a` after that, as a regular expression may.
#[inline(never)]
fn matches_slowly(optional: usize, required: usize, text: &[u8]) -> bool {
    match (optional, text) {
        (0, _) => text.len() >= required && text[..required].iter().all(|byte| *byte == b'a'),
        (_, [b'a', rest @ ..]) if matches_slowly(optional - 1, required, black_box(rest)) => true,
        _ => matches_slowly(optional - 1, required, black_box(text)),
    }
}

fn matches_for_long() {
    // 2^16 ways, of which the last one matches.
    until_used(LONG * 2, || assert!(black_box(matches_slowly(16, 16, &[b'a'; 16]))));
}

/// Asks a server that never answers for the address of a name.
#[inline(never)]
#[cfg(target_env = "gnu")]
fn looks_a_name_up() {
    /// The beginning of the C library's own settings of a thread.
    #[repr(C)]
    struct Resolver {
        timeout_seconds: libc::c_int,
        tries: libc::c_int,
        options: libc::c_ulong,
        servers: libc::c_int,
        first_server: libc::sockaddr_in,
    }

    unsafe extern "C" {
        fn __res_init() -> libc::c_int;
        fn __res_state() -> *mut Resolver;
    }

    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    // SAFETY: after the first call the second one returns the settings of this thread.
    unsafe {
        assert_eq!(__res_init(), 0);
        let resolver = &mut *__res_state();
        (resolver.timeout_seconds, resolver.tries, resolver.servers) = (2, 1, 1);
        resolver.first_server = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: server.local_addr().unwrap().port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
            sin_zero: [0; 8],
        };
    }
    assert!(black_box(("nowhere.test.", 80).to_socket_addrs()).is_err());
}

/// Waits for a future as a simple executor does.
#[inline(never)]
fn blocks_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[inline(never)]
fn blocks_on_another_future() {
    let (sender, received) = tokio::sync::oneshot::channel();
    let other = thread::spawn(|| {
        thread::sleep(LONG);
        sender.send(()).unwrap();
    });
    blocks_on(received).unwrap();
    other.join().unwrap();
}

/// The texts of all stalls that a handler gets.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn metrics(&self) -> RuntimeMetrics {
        let seen = self.clone();
        let handler = move |stall: &profile::Stall| seen.lock().push(stall.to_string());
        RuntimeMetrics::builder().on_stall(handler).build(&opentelemetry::global::meter("test"))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stalls a runtime until a stack with a function was seen.
    fn assert_seen(&self, function: &str, stall: impl Fn()) {
        let start = Instant::now();
        loop {
            stall();
            let seen = self.lock();
            if let Some(text) = seen.iter().find(|text| text.contains(function)) {
                println!("{text}");
                assert!(!text.lines().any(is_of_loop), "{text}");
                return;
            }
            // Beside other programs it takes several stalls.
            assert!(start.elapsed() < Duration::from_secs(300), "no {function} in {seen:?}");
        }
    }
}

/// Returns true if a line of a stack names a function of the worker's loop or its file. The types of a function, behind its name,
/// may be the loop's.
fn is_of_loop(line: &str) -> bool {
    let name = line.trim_start_matches(|char: char| char.is_ascii_digit() || " :<".contains(char));
    let name = name.split('<').next().unwrap_or_default();
    name.contains("scheduler::multi_thread") || line.contains("/runtime/scheduler/multi_thread/")
}

fn multi_thread() -> Runtime {
    runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn on(runtime: &Runtime, run: impl FnOnce() + Send + 'static) {
    runtime.block_on(runtime.spawn(named(run))).unwrap();
}

/// Of a task with a name it is known that one poll lasts.
fn named(run: impl FnOnce() + Send + 'static) -> impl Future<Output = ()> + Send {
    async { run() }.with_task_name("test")
}

#[test]
fn the_function_that_stalls_a_worker_is_named_while_it_does() {
    let _alone = alone();
    let seen = Seen::default();
    let metrics = seen.metrics();
    let runtime = multi_thread();
    metrics.watch_runtime("main", runtime.handle());
    seen.assert_seen("blocks_in_sleep", || on(&runtime, blocks_in_sleep));
    seen.assert_seen("blocks_for_a_lock", || {
        let held = LOCK.lock().unwrap();
        let stalled = runtime.spawn(async { blocks_for_a_lock() });
        thread::sleep(LONG);
        drop(held);
        runtime.block_on(stalled).unwrap();
    });
    seen.assert_seen("blocks_in_read", || {
        let (mut reader, writer) = io::pipe().unwrap();
        let stalled = runtime.spawn(async move { blocks_in_read(&mut reader) });
        thread::sleep(LONG);
        drop(writer);
        runtime.block_on(stalled).unwrap();
    });
    seen.assert_seen("computes", || on(&runtime, computes));
    seen.assert_seen("matches_slowly", || on(&runtime, matches_for_long));
    #[cfg(target_env = "gnu")]
    seen.assert_seen("looks_a_name_up", || on(&runtime, looks_a_name_up));
    seen.assert_seen("blocks_on_another_future", || on(&runtime, blocks_on_another_future));
    assert!(seen.lock().iter().all(|text| text.contains("of runtime main is stalled")));
}

#[inline(never)]
fn waits_in(call: &Call) -> bool {
    black_box(call())
}

#[test]
fn the_system_calls_of_a_stalled_worker_are_not_disturbed() {
    let _alone = alone();
    let seen = Seen::default();
    let metrics = seen.metrics();
    let runtime = multi_thread();
    metrics.watch_runtime("main", runtime.handle());
    for (name, call) in syscalls::waiting(800) {
        seen.lock().clear();
        let call = Arc::new(call);
        let (calls, ended_early) = (AtomicUsize::new(0), AtomicUsize::new(0));
        seen.assert_seen("waits_in", || {
            let call = Arc::clone(&call);
            let task = async move { waits_in(&call) }.with_task_name("waiting");
            let is_interrupted = runtime.block_on(runtime.spawn(task)).unwrap();
            calls.fetch_add(1, SeqCst);
            ended_early.fetch_add(usize::from(is_interrupted), SeqCst);
        });
        let (calls, ended_early, stacks) = (calls.into_inner(), ended_early.into_inner(), seen.lock().len());
        println!("{name:24} {calls} calls, {stacks} stacks, {ended_early} ended early");
        assert_eq!(ended_early, 0, "{name}");
    }
}

#[inline(never)]
fn first_part() {
    thread::sleep(Duration::from_millis(800));
    black_box(());
}

#[inline(never)]
fn second_part() {
    thread::sleep(Duration::from_millis(3200));
    black_box(());
}

#[inline(never)]
fn third_part() {
    thread::sleep(Duration::from_secs(9));
    black_box(());
}

#[test]
fn a_long_stall_is_looked_at_again() {
    let _alone = alone();
    repeat_when_late(|| {
        let seen = Seen::default();
        let metrics = seen.metrics();
        let runtime = multi_thread();
        metrics.watch_runtime("main", runtime.handle());
        looks(&metrics, 8);
        on(&runtime, || {
            first_part();
            second_part();
            third_part();
        });
        let texts = std::mem::take(&mut *seen.lock());
        let parts: Vec<_> = ["first_part", "second_part", "third_part"]
            .map(|part| texts.iter().position(|text| text.contains(part)))
            .into_iter()
            .collect();
        // At once, after 1 s and after 10 s.
        assert_eq!(parts, [Some(0), Some(1), Some(2)], "{texts:?}");
        assert_eq!(texts.len(), 3, "{texts:?}");
        let since = |text: &String| {
            let (_, after) = text.split_once("(blocked) for ").unwrap();
            let time = after.split_once(' ').map_or(after, |(time, _)| time);
            time.strip_suffix('s')
                .filter(|time| !time.ends_with('m'))
                .map(|time| time.parse::<f64>().unwrap())
        };
        let times: Vec<_> = texts.iter().map(since).collect();
        println!("{times:?} s");
        assert!(times[0].is_none_or(|time| time < 0.8), "{times:?}");
        assert!(times[1].is_some_and(|time| (1.0..4.0).contains(&time)), "{times:?}");
        assert!(times[2].is_some_and(|time| (10.0..13.0).contains(&time)), "{times:?}");
    });
}

#[test]
fn without_a_handler_each_stack_is_logged_once_a_minute() {
    let _alone = alone();
    log::listen();
    let attempts = AtomicUsize::new(0);
    repeat_when_late(|| {
        let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
        let runtime = multi_thread();
        // The log of an earlier attempt must not count.
        let name = format!("logged-{}", attempts.fetch_add(1, SeqCst));
        metrics.watch_runtime(name.clone(), runtime.handle());
        looks(&metrics, 8);
        log::take();
        on(&runtime, blocks_in_sleep);
        on(&runtime, blocks_in_sleep);
        // The loop of the worker calls a task that another one spawned from elsewhere.
        let spawned = async { tokio::spawn(named(blocks_in_sleep)).await };
        runtime.block_on(runtime.spawn(spawned)).unwrap().unwrap();
        on(&runtime, blocks_on_another_future);
        // Another thread looks the names up.
        let mut lines = Vec::new();
        until("the lines", || {
            lines.extend(log::take());
            let has = |function: &str| lines.iter().any(|line: &String| line.contains(function));
            (has("blocks_in_sleep") && has("blocks_on")).then_some(())
        });
        lines.retain(|line| line.contains("a worker is stalled") && line.contains(&name));
        let of_sleep: Vec<_> = lines.iter().filter(|line| line.contains("blocks_in_sleep")).collect();
        println!("{}", of_sleep[0]);
        // The function of the program, not `sleep` of the standard library, which it calls.
        let place = "blocked for ";
        assert!(of_sleep[0].starts_with("WARN") && of_sleep[0].contains(place), "{lines:?}");
        assert!(of_sleep[0].contains(" in profile_stalls::blocks_in_sleep in task test"), "{lines:?}");
        assert_eq!(of_sleep.len(), 1, "{lines:?}");
        assert_eq!(lines.len(), 2, "{lines:?}");
    });
}

#[test]
fn a_current_thread_runtime_and_two_at_once_are_seen() {
    let _alone = alone();
    let seen = Seen::default();
    let metrics = seen.metrics();
    let (one, two) = (multi_thread(), multi_thread());
    metrics.watch_runtime("one", one.handle());
    metrics.watch_runtime("two", two.handle());
    let current = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics.watch_runtime("current", current.handle());
    // A thread that drives it all the time: Tokio does not report whether one does.
    let is_over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&is_over);
    let driver = thread::spawn(move || {
        current.block_on(async {
            while !until.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(300)).await;
                blocks_in_sleep();
            }
        });
    });
    let start = Instant::now();
    let is_seen = |runtime: &str, function: &str| {
        let runtime = format!("of runtime {runtime} ");
        seen.lock().iter().any(|text| text.contains(&runtime) && text.contains(function))
    };
    while !(is_seen("one", "blocks_in_sleep")
        && is_seen("two", "computes")
        && is_seen("current", "blocks_in_sleep"))
    {
        assert!(start.elapsed() < Duration::from_secs(300), "{:?}", seen.lock());
        let stalled =
            (one.spawn(async { blocks_in_sleep() }), two.spawn(async { computes() }.with_task_name("test")));
        one.block_on(stalled.0).unwrap();
        two.block_on(stalled.1).unwrap();
    }
    is_over.store(true, SeqCst);
    driver.join().unwrap();
}

/// A runtime that is watched, and whose threads the watcher has found.
fn watched(name: &'static str) -> (RuntimeMetrics, Runtime) {
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
    let runtime = multi_thread();
    metrics.watch_runtime(name, runtime.handle());
    looks(&metrics, 8);
    (metrics, runtime)
}

#[test]
fn stalls_add_up_to_a_profile() {
    let _alone = alone();
    repeat_when_late(|| {
        // Without a handler, which would keep the watcher from looking while it writes stacks.
        let (metrics, runtime) = watched("profiled");
        let before = profile::stalls();
        let stalled = runtime.spawn(async { blocks_in_sleep() }.with_task_name("stalling"));
        runtime.block_on(stalled).unwrap();
        looks(&metrics, 3);
        let profile = profile::stalls().delta(&before);
        let text = profile.to_string();
        let stack = text.split("\n\n").find(|stack| stack.contains("blocks_in_sleep"));
        let stack = stack.unwrap_or_else(|| panic!("{profile}"));
        assert!(stack.contains("cause=blocked runtime=profiled task=stalling"), "{stack}");
        // The threads that run tasks, from the future on.
        assert!(!stack.contains("tokio::runtime::scheduler"), "{stack}");
        let truth = LONG.as_nanos() as f64;
        let (exact, total) = (profile.exact_total().unwrap() as f64, profile.total() as f64);
        println!("{:.0} of {:.0} ms", total / 1e6, exact / 1e6);
        assert!((exact / truth - 1.0).abs() < 0.15, "{exact} of {truth}: {profile}");
        assert!((total / exact - 1.0).abs() < 0.15, "{total} of {exact}: {profile}");
    });
}

#[test]
fn a_runtime_that_outlives_a_thousand_others_counts_once() {
    let _alone = alone();
    let (metrics, runtime) = watched("oldest");
    let exact = || profile::stalls().exact_total().unwrap();
    let before = exact();
    runtime.block_on(runtime.spawn(async { blocks_in_sleep() })).unwrap();
    looks(&metrics, 3);
    let once = exact();
    assert!(once > before);
    let crowd = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
    let others: Vec<_> = (0..1_100)
        .map(|_| {
            let other = runtime::Builder::new_current_thread().build().unwrap();
            crowd.watch_runtime("other", other.handle());
            other
        })
        .collect();
    looks(&metrics, 5);
    drop(others);
    // A worker may have waited for a CPU meanwhile.
    let (stalled, after) = (once - before, exact());
    assert!(after < once + stalled, "{stalled} ns became {}", after - before);
}
