//! `Monitor`: the content of its lines, when they come and when they end.

use std::alloc::System;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use opentelemetry_instrumentation_runtime::{CountingAllocator, Monitor, RuntimeMetrics, Sampled};
use serde_json::Value;
use support::go::MONITOR_KEYS;

#[global_allocator]
static ALLOCATOR: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

const INTERVAL: Duration = Duration::from_millis(20);
/// Far longer than anything here takes, the look-up of names in an executable that is not optimised included.
const LONG: Duration = Duration::from_secs(300);

fn metrics() -> RuntimeMetrics {
    RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"))
}

/// Sends each write to the test.
struct Lines(Sender<Vec<u8>>);

impl Lines {
    fn new() -> (Self, Receiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::channel();
        (Lines(sender), receiver)
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn next(lines: &Receiver<Vec<u8>>) -> Value {
    let line = lines.recv_timeout(LONG).expect("a line comes");
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1), "one line in one write");
    serde_json::from_slice(&line).expect("a line is JSON")
}

#[test]
fn a_line_is_the_snapshot_with_rates() {
    let (writer, lines) = Lines::new();
    let monitor = Monitor::start(&metrics(), INTERVAL, writer);
    let (first, second) = (next(&lines), next(&lines));
    drop(monitor);
    for line in [&first, &second] {
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(line["process.uptime"].as_f64().is_some_and(|uptime| uptime > 0.0), "{line}");
        assert!(line["process.cpu.time"]["user"].is_f64(), "{line}");
        assert!(line["process.cpu.time/s"]["user"].is_f64(), "rates from the first line on: {line}");
        assert!(line.get("process.uptime/s").is_none(), "no counter, no rate: {line}");
    }
    assert!(second["time"].as_str() > first["time"].as_str());
    let faults = |line: &Value| line["process.paging.faults"]["minor"].as_u64().unwrap();
    assert!(faults(&second) >= faults(&first));
    assert!(second["process.paging.faults/s"]["minor"].as_f64().is_some_and(|rate| rate >= 0.0));
}

#[inline(never)]
fn growing_function() -> Vec<Vec<u8>> {
    black_box((0..100).map(|_| vec![1; 100_000]).collect())
}

#[test]
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn each_third_line_has_the_stacks_that_have_grown_most() {
    use opentelemetry_instrumentation_runtime::profile::HeapProfile;

    let lines_of = |metrics: &RuntimeMetrics| {
        let (writer, lines) = Lines::new();
        let monitor = Monitor::with_stacks(metrics, INTERVAL, 3, writer);
        let kept = growing_function();
        let read: Vec<_> = (0..6).map(|_| next(&lines)).collect();
        drop((monitor, kept));
        read
    };
    let without = lines_of(&metrics());
    assert!(
        without.iter().all(|line| line.get("heap.growth").is_none()),
        "no heap profile runs: {without:?}"
    );

    HeapProfile::start(16 * 1024).unwrap();
    let lines = lines_of(&metrics());
    let has_stacks: Vec<_> = lines.iter().map(|line| line.get("heap.growth").is_some()).collect();
    assert_eq!(has_stacks, [false, false, true, false, false, true]);
    let stacks = lines[2]["heap.growth"].as_array().unwrap();
    assert!((1..=5).contains(&stacks.len()), "{stacks:?}");
    let first = &stacks[0];
    // Its closure, unless that is inlined.
    let is_of_it =
        |name: &Value| name.as_str().is_some_and(|name| name.starts_with("monitor_lines::growing_function"));
    assert!(is_of_it(&first["function"]), "{first}");
    assert!(first["file"].as_str().is_some_and(|file| file.ends_with("tests/monitor_lines.rs")), "{first}");
    assert!(first["line"].as_u64().is_some_and(|line| line > 0), "{first}");
    assert!(first["bytes"].as_u64().is_some_and(|bytes| (9_000_000..11_000_000).contains(&bytes)), "{first}");
    let stack = first["stack"].as_array().unwrap();
    assert!(is_of_it(&stack[0]), "{first}");
    assert!(stack.iter().all(|name| !name.as_str().unwrap().starts_with("core::")), "{first}");
    let later = lines[5]["heap.growth"].to_string();
    assert!(!later.contains("growing_function"), "it has not grown since: {later}");
}

#[test]
fn a_line_of_memstats_has_go_s_keys() {
    let (writer, lines) = Lines::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let metrics = metrics();
    metrics.watch_runtime("", runtime.handle());
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let task = runtime.spawn(wait);
    let monitor = Monitor::memstats(&metrics, INTERVAL, writer);
    let line = next(&lines);
    drop(monitor);
    assert!(line["Sys"].as_u64().is_some_and(|sys| sys > 100_000), "{line}");
    assert_eq!(line["NumGoroutine"], 1, "{line}");
    assert!(line.as_object().unwrap().keys().all(|key| MONITOR_KEYS.contains(&key.as_str())), "{line}");
    go_on.send(()).unwrap();
    runtime.block_on(task).unwrap().unwrap();
}

#[test]
fn lines_come_while_the_runtime_is_blocked() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (writer, lines) = Lines::new();
    runtime.block_on(async {
        let metrics = metrics();
        let _monitor = Monitor::start(&metrics, INTERVAL, writer);
        // Blocks the runtime's only thread until lines have come.
        for _ in 0..3 {
            assert_eq!(next(&lines)["tokio.task.count"], serde_json::json!({"1": 0}));
        }
    });
}

#[test]
fn dropping_it_ends_the_lines() {
    let (writer, lines) = Lines::new();
    // With an interval this long, only the drop can wake the thread.
    let monitor = Monitor::start(&metrics(), Duration::from_secs(1_000_000), writer);
    drop(monitor);
    assert_eq!(
        lines.recv_timeout(LONG),
        Err(RecvTimeoutError::Disconnected),
        "the thread has let go of the writer"
    );
}

#[test]
fn a_closed_pipe_ends_the_lines_and_nothing_else() {
    let (mut reader, writer) = io::pipe().unwrap();
    let metrics = metrics();
    let (dropped, ended) = mpsc::channel::<()>();
    let monitor = Monitor::start(&metrics, INTERVAL, Notifies(writer, dropped));
    let mut first = [0];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"{");
    drop(reader);
    assert_eq!(ended.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    assert!(metrics.snapshot().get("process.uptime").is_some());
    drop(monitor);
}

/// Notifies the test when the writer is dropped.
struct Notifies<W>(W, #[allow(dead_code, reason = "dropped with the writer")] Sender<()>);

impl<W: Write> Write for Notifies<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn an_interval_of_zero_does_not_spin() {
    let (writer, lines) = Lines::new();
    let start = std::time::Instant::now();
    let _monitor = Monitor::start(&metrics(), Duration::ZERO, writer);
    (0..20).for_each(|_| _ = next(&lines));
    assert!(start.elapsed() >= Duration::from_millis(20));
}
