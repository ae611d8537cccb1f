//! `process.*` against other programs, other files and the test's own actions.

#![cfg(target_os = "linux")]

use support::snapshot;

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::RuntimeMetrics;
use snapshot::{metrics, printed_by, values};

fn value(metrics: &RuntimeMetrics, name: &str) -> f64 {
    let values = values(&metrics.snapshot());
    *values.get(name).unwrap_or_else(|| panic!("{name} is not among {values:?}"))
}

/// Runs one of the ignored tests in a child process, where no other test opens, starts or allocates anything.
fn alone(test: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--ignored", "--exact", test, "--test-threads=1"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Compares a value with another source of the same number.
fn assert_same(name: &str, other_view: impl Fn() -> u64) -> u64 {
    let metrics = metrics();
    // The first snapshot makes its own allocations before the two are compared.
    drop(metrics.snapshot());
    let other_view = other_view();
    assert_eq!(value(&metrics, name), other_view as f64, "{name}");
    other_view
}

fn entries(directory: &str) -> u64 {
    std::fs::read_dir(directory).unwrap().count() as u64
}

/// A line of `/proc/self/status`, in kibibytes where it has a unit.
fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn threads_are_those_that_proc_lists() {
    alone("count_threads");
}

#[test]
#[ignore = "run by another test, in a child process"]
fn count_threads() {
    let tasks = || entries("/proc/self/task");
    let before = assert_same("process.thread.count", tasks);
    let gate = Arc::new(Barrier::new(21));
    let threads: Vec<_> = (0..20)
        .map(|_| {
            let gate = Arc::clone(&gate);
            std::thread::spawn(move || gate.wait())
        })
        .collect();
    assert_eq!(assert_same("process.thread.count", tasks), before + 20);
    gate.wait();
    threads.into_iter().for_each(|thread| _ = thread.join().unwrap());
}

#[test]
fn file_descriptors_are_those_that_proc_lists() {
    alone("count_file_descriptors");
}

#[test]
#[ignore = "run by another test, in a child process"]
fn count_file_descriptors() {
    // The directory that is listed has one itself.
    let listed = || entries("/proc/self/fd") - 1;
    let without_metrics = listed();
    let own = metrics();
    drop(own.snapshot());
    let kept = listed() - without_metrics;
    assert!((1..=16).contains(&kept), "{kept} files stay open");
    drop(own);
    assert_eq!(listed(), without_metrics, "the last one closes them");

    let before = assert_same("process.unix.file_descriptor.count", listed);
    let files: Vec<_> = (0..50).map(|_| File::open("/dev/null").unwrap()).collect();
    assert_eq!(assert_same("process.unix.file_descriptor.count", listed), before + 50);
    drop(files);
}

#[test]
fn a_child_after_fork_reads_its_own_files() {
    alone("fork_with_open_files");
}

#[test]
#[ignore = "run by another test, in a child process"]
fn fork_with_open_files() {
    const SIZE: usize = 64 << 20;
    let metrics = metrics();
    let [used, threads] = ["process.memory.usage", "process.thread.count"];
    let before = value(&metrics, used);
    assert!(value(&metrics, threads) >= 2.0, "the harness has a thread beside this one");
    let as_it_should_be = || {
        let memory = black_box(vec![1_u8; SIZE]);
        let grown = value(&metrics, used) - before;
        let alone = value(&metrics, threads) == 1.0;
        drop(memory);
        alone && grown > SIZE as f64 / 2.0
    };
    match unsafe { libc::fork() } {
        0 => {
            // Rather than wait for a lock that another thread held when the child began.
            unsafe { libc::alarm(60) };
            let good = catch_unwind(AssertUnwindSafe(as_it_should_be)).unwrap_or(false);
            unsafe { libc::_exit(i32::from(!good)) }
        }
        child => {
            assert!(child > 0, "fork failed");
            let mut status = 0;
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert!(libc::WIFEXITED(status), "the child ended by a signal");
            assert_eq!(libc::WEXITSTATUS(status), 0, "the child reads its own files");
        }
    }
    assert!(value(&metrics, used) < before + SIZE as f64 / 2.0, "the parent reads its own");
}

#[test]
fn touched_memory_is_used_memory() {
    const SIZE: usize = 64 << 20;
    let metrics = metrics();
    let (used, faults) = ("process.memory.usage", "process.paging.faults{minor}");
    let before = (value(&metrics, used), value(&metrics, faults));

    let untouched: Vec<u8> = black_box(vec![0; SIZE]);
    assert!(value(&metrics, "process.memory.virtual") >= SIZE as f64);
    assert!(value(&metrics, used) < before.0 + SIZE as f64 / 2.0, "reserved, not used");

    let mut touched = untouched;
    touched.chunks_mut(4096).for_each(|page| page[0] = 1);
    black_box(&touched);
    let after = (value(&metrics, used), value(&metrics, faults));
    let grown = after.0 - before.0;
    assert!((0.9..1.5).contains(&(grown / SIZE as f64)), "{grown} bytes more after touching {SIZE}");
    // Huge pages need fewer faults than one for each small page.
    assert!(after.1 - before.1 >= (SIZE / (2 << 20)) as f64, "{before:?} {after:?}");
    assert!(value(&metrics, "process.paging.faults{major}") >= 0.0);

    // The kernel counts in per-CPU batches, and other tests run.
    let other_view = (status("VmRSS") << 10) as f64;
    assert!((value(&metrics, used) / other_view - 1.0).abs() < 0.2);
    drop(touched);
    assert!(value(&metrics, used) < after.0 - SIZE as f64 / 2.0);
}

#[test]
fn virtual_memory_is_that_of_proc() {
    alone("measure_virtual_memory");
}

#[test]
#[ignore = "run by another test, in a child process"]
fn measure_virtual_memory() {
    let size = || status("VmSize") << 10;
    let before = assert_same("process.memory.virtual", size);
    let more = black_box(vec![0_u8; 64 << 20]);
    assert!(assert_same("process.memory.virtual", size) >= before + (64 << 20));
    drop(more);
}

#[test]
fn cpu_time_is_that_of_all_threads() {
    let metrics = metrics();
    let total = || value(&metrics, "process.cpu.time{user}") + value(&metrics, "process.cpu.time{system}");
    let before = total();
    // In a thread that has ended before the second reading.
    let thread = std::thread::spawn(|| {
        let ticks = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        let start = ticks();
        while ticks() < start + 20 {
            (0..10_000).for_each(|n| _ = black_box(n));
        }
    });
    thread.join().unwrap();
    let used = total() - before;
    // 20 ticks of 10 ms. A tick goes to the thread that runs when it falls, hence not to the last digit.
    assert!(used > 0.15, "{used} s");
}

/// opentelemetry-instrumentation-process 0.3 reports those of the main thread alone.
#[test]
fn context_switches_are_those_of_all_threads() {
    const TIMES: u32 = 300;
    let metrics = metrics();
    let name = "process.context_switches{voluntary}";
    let before = value(&metrics, name);
    let (ping, pings) = mpsc::sync_channel::<()>(0);
    let thread = std::thread::spawn(move || {
        for () in pings {
            std::thread::sleep(Duration::from_micros(1));
        }
    });
    (0..TIMES).for_each(|_| ping.send(()).unwrap());
    drop(ping);
    thread.join().unwrap();
    let switches = value(&metrics, name) - before;
    assert!(switches >= f64::from(TIMES), "{switches} after {TIMES} sleeps");
    assert!(value(&metrics, "process.context_switches{involuntary}") >= 0.0);
}

#[test]
fn uptime_is_the_time_since_the_start() {
    let metrics = metrics();
    let first = value(&metrics, "process.uptime");
    let since = Instant::now();
    let output = Command::new("ps").args(["-o", "etimes=", "-p", &std::process::id().to_string()]).output();
    let by_ps: f64 = String::from_utf8(output.unwrap().stdout).unwrap().trim().parse().unwrap();
    let second = value(&metrics, "process.uptime");
    let elapsed = since.elapsed().as_secs_f64();
    assert!(first > 0.0 && second > first);
    assert!(second - first <= elapsed + 0.1 && elapsed < second - first + 0.1, "{elapsed}");
    assert!(first - 1.1 <= by_ps && by_ps <= second + 1.1, "{by_ps} s by ps, {first} s by the metric");
}

#[test]
fn written_bytes_are_counted_on_request() {
    const SIZE: usize = 1 << 20;
    let metrics = metrics();
    let Some(before) = values(&metrics.snapshot()).get("process.disk.io{write}").copied() else {
        support::skip::skip("/proc/self/io cannot be read");
        return;
    };
    let mut file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.write_all(&vec![7; SIZE]).unwrap();
    file.sync_all().unwrap();
    let written = value(&metrics, "process.disk.io{write}") - before;
    let kind = Command::new("stat").args(["-fc", "%T", env!("CARGO_TARGET_TMPDIR")]).output().unwrap();
    match String::from_utf8_lossy(&kind.stdout).trim() {
        kind @ ("tmpfs" | "ramfs" | "overlayfs") => eprintln!("not checked: {kind} is no disk"),
        _ => assert!(written >= SIZE as f64, "{written}"),
    }
    assert!(value(&metrics, "process.disk.io{read}") >= 0.0);
}

#[test]
fn opt_in_metrics_are_off_by_default() {
    let meter = opentelemetry::global::meter("test");
    let default = values(&RuntimeMetrics::builder().build(&meter).snapshot());
    assert!(default.contains_key("process.uptime"));
    assert!(!default.keys().any(|name| name.starts_with("process.disk.io")));

    let off = RuntimeMetrics::builder().process(false).disk_io(true).build(&meter);
    let values = values(&off.snapshot());
    assert!(values.contains_key("rust.cpu.count"));
    assert!(!values.keys().any(|name| name.starts_with("process.")), "{values:?}");
    assert!(format!("{off:?}").contains(r#""process": "turned off""#), "{off:?}");
}

#[test]
fn without_proc_the_system_calls_remain() {
    let through = ["unshare", "--mount", "sh", "-c", r#"umount -l /proc && exec "$0" "$@""#];
    let can = Command::new(through[0]).args(&through[1..]).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        support::skip::skip("/proc cannot be unmounted (not root, or no unshare)");
        return;
    }
    let names: Vec<_> =
        printed_by(&through).into_keys().filter(|name| name.starts_with("process.")).collect();
    let expected = [
        "process.context_switches{involuntary}",
        "process.context_switches{voluntary}",
        "process.cpu.time{system}",
        "process.cpu.time{user}",
        "process.paging.faults{major}",
        "process.paging.faults{minor}",
    ];
    assert_eq!(names, expected);
}

#[test]
#[ignore = "run by the other tests, under their conditions"]
fn print() {
    snapshot::print();
}
