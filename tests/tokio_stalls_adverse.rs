//! Stalls where the system hides what threads do, stops the process, or limits its CPU time.
//!
//! Each condition holds for a whole process, so that the tests run their scenes in child processes.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "std has no seccomp filters and sends no signals")]

use support::{child, pace, runtimes, skip};

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::{RuntimeMetrics, TaskExt};
use pace::repeat_when_late;
use runtimes::{build, looks, stalls_by_cause};
use tokio::runtime::{self, Runtime};
use tokio::task::{block_in_place, yield_now};

/// After so many looks the watcher knows the threads of the workers.
const KNOWN: u64 = 8;

/// Longer than the time after which a silent worker counts as stalled although the system says nothing of its thread.
const STALL: Duration = Duration::from_secs(4);

fn multi_thread(workers: usize) -> Runtime {
    runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_keep_alive(Duration::from_millis(20))
        .enable_time()
        .build()
        .unwrap()
}

fn compute(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        (0..1_000).for_each(|number| _ = black_box(number));
    }
}

/// Two tasks with polls of a few milliseconds, one of them with a name. They yield in between.
fn yielding(runtime: &Runtime) {
    let task = |poll: Duration| async move {
        loop {
            compute(poll);
            yield_now().await;
        }
    };
    runtime.spawn(task(Duration::from_millis(2)));
    runtime.spawn(task(Duration::from_millis(5)).with_task_name("yields"));
}

/// Makes one worker do this for so long, and returns what was counted meanwhile: blocked, running, starved.
fn stall(act: fn(Duration)) -> [f64; 3] {
    let runtime = multi_thread(2);
    let metrics = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
    looks(&metrics, KNOWN);
    let task = runtime.spawn(async move { act(STALL) });
    while !task.is_finished() {
        thread::sleep(Duration::from_millis(20));
    }
    looks(&metrics, 3);
    stalls_by_cause(&metrics)
}

/// Counts the stalls of workers that yield, and move to other threads that soon end.
fn moving() -> [f64; 3] {
    let runtime = multi_thread(2);
    let metrics = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
    looks(&metrics, KNOWN);
    yielding(&runtime);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        let task = runtime.spawn(async { block_in_place(|| thread::sleep(Duration::from_millis(60))) });
        while !task.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let stalls = stalls_by_cause(&metrics);
    runtime.shutdown_background();
    stalls
}

fn print(name: &str, stalls: [f64; 3]) {
    let [blocked, running, starved] = stalls;
    println!("RESULT {name} {blocked} {running} {starved}");
}

#[test]
#[ignore = "run by the other tests, under their conditions"]
fn scenes() {
    match std::env::var("FORBIDDEN").as_deref() {
        Ok("times") => forbid(&[Forbidden::ThreadTimes]),
        Ok("files") => forbid(&[Forbidden::Files]),
        Ok("both") => forbid(&[Forbidden::ThreadTimes, Forbidden::Files]),
        _ => {}
    }
    // Beside the others, since it uses no CPU.
    let sleep = thread::spawn(|| stall(thread::sleep));
    let compute = stall(compute);
    let moving = moving();
    print("sleep", sleep.join().unwrap());
    print("compute", compute);
    print("moving", moving);
}

/// Runs the scenes in a child, and checks that each true stall was counted once and that there were no others.
///
/// `causes` are those of a worker that sleeps and of one that computes.
fn check(command: impl Fn() -> Command, causes: [&str; 2]) {
    repeat_when_late(|| {
        let lines = child::results(&mut command());
        let expected = |name: &str, cause: &str| {
            let count = |known: &str| u32::from(cause == known);
            format!("{name} {} {} {}", count("blocked"), count("running"), count("starved"))
        };
        let [sleep, compute] = causes;
        let expected = [expected("sleep", sleep), expected("compute", compute), expected("moving", "none")];
        assert_eq!(lines, expected);
    });
}

fn scenes_with(forbidden: &str) -> Command {
    let mut command = child::child("scenes");
    command.env("FORBIDDEN", forbidden);
    command
}

#[test]
fn with_everything_readable_the_causes_are_known() {
    check(|| scenes_with("nothing"), ["blocked", "running"]);
}

#[test]
fn without_the_files_of_threads_the_causes_follow_from_their_times() {
    check(|| scenes_with("files"), ["blocked", "running"]);
}

#[test]
fn without_the_times_of_threads_a_silent_worker_counts_as_running() {
    check(|| scenes_with("times"), ["running", "running"]);
    check(|| scenes_with("both"), ["running", "running"]);
}

#[test]
fn without_proc_the_causes_follow_from_the_times_of_threads() {
    let through = ["--mount", "sh", "-c", r#"umount -l /proc && exec "$0" "$@""#];
    let can = Command::new("unshare").args(through).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        skip::skip("/proc cannot be unmounted (not root, or no unshare)");
        return;
    }
    let command = || {
        let scenes = scenes_with("nothing");
        let mut command = Command::new("unshare");
        command.args(through).arg(scenes.get_program()).args(scenes.get_args());
        command
    };
    check(command, ["blocked", "running"]);
}

#[derive(Clone, Copy)]
enum Forbidden {
    /// `clock_gettime` of another thread's clock.
    ThreadTimes,
    /// `openat` and `open`, so that no file can be opened.
    Files,
}

/// The system calls that open a file: glibc has one, musl the other where there is one.
const OPEN_CALLS: &[libc::c_long] = &[
    libc::SYS_openat,
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    libc::SYS_open,
];

/// The system calls that read a clock: on 32 bits there is one for each width of the seconds.
const CLOCK_CALLS: &[libc::c_long] = &[
    libc::SYS_clock_gettime,
    // `clock_gettime64`, which the crate does not name.
    #[cfg(target_arch = "x86")]
    403,
];

/// Installs a seccomp filter on this thread, which all threads inherit that it starts.
fn forbid(what: &[Forbidden]) {
    const fn statement(code: u32, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
    }
    /// Skips so many statements unless the loaded number is `k`.
    const fn unless(k: u32, skip: u8) -> libc::sock_filter {
        libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf: skip, k }
    }
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let deny = statement(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    // The number of the system call is at 0; the lower half of its first argument is at 16.
    let mut filter = vec![statement(LOAD, 0)];
    for what in what {
        match what {
            Forbidden::Files => {
                OPEN_CALLS.iter().for_each(|call| filter.extend([unless(*call as u32, 1), deny]));
            }
            Forbidden::ThreadTimes => {
                for call in CLOCK_CALLS {
                    filter.extend([
                        unless(*call as u32, 4),
                        statement(LOAD, 16),
                        // The clock of a thread or process is a negative number.
                        libc::sock_filter {
                            code: (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16,
                            jt: 0,
                            jf: 1,
                            k: 1 << 31,
                        },
                        deny,
                        statement(LOAD, 0),
                    ]);
                }
            }
        }
    }
    filter.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `prctl` reads the program, which lives until the call returns. The filter only denies calls.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(installed, "{}", std::io::Error::last_os_error());
    for what in what {
        match what {
            Forbidden::Files => assert!(std::fs::File::open("/proc/self/stat").is_err()),
            Forbidden::ThreadTimes => {
                let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                // SAFETY: `time` is valid for writing.
                let thread = unsafe { libc::clock_gettime(!0 << 3 | 4 | 2, &raw mut time) };
                assert_ne!(thread, 0, "it is forbidden");
            }
        }
    }
}

/// How long the process is stopped.
const STOPPED: Duration = Duration::from_secs(3);

#[test]
#[ignore = "run by another test, which stops this process meanwhile"]
fn stopped_scene() {
    let runtime = multi_thread(2);
    let metrics = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
    yielding(&runtime);
    looks(&metrics, KNOWN);
    // It may be stopped as soon as it has printed that.
    let mut last = Instant::now();
    println!("RESULT ready");
    loop {
        thread::sleep(Duration::from_millis(50));
        let now = Instant::now();
        if now - last > STOPPED / 2 {
            break;
        }
        last = now;
    }
    looks(&metrics, 10);
    print("stopped", stalls_by_cause(&metrics));
    runtime.shutdown_background();
}

#[test]
fn a_process_that_was_stopped_has_no_stall_afterwards() {
    repeat_when_late(|| {
        let mut child = child::child("stopped_scene").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut result = || {
            let line = lines.find(|line| line.contains("RESULT ")).expect("the child prints it");
            line.split("RESULT ").nth(1).map(str::to_owned).unwrap_or_default()
        };
        let send = |signal| {
            // SAFETY: `kill` takes any numbers. The child has not been waited for, so that the id is still its own.
            assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
        };
        assert_eq!(result(), "ready");
        send(libc::SIGSTOP);
        thread::sleep(STOPPED);
        send(libc::SIGCONT);
        let stalls = result();
        assert!(child.wait().unwrap().success());
        assert_eq!(stalls, "stopped 0 0 0");
    });
}

/// A control group with a quota of CPU time, which lasts as long as this value.
struct Throttled(PathBuf);

impl Throttled {
    /// Makes a group that may use a tenth of a CPU, in periods of 100 ms.
    fn new() -> Option<Self> {
        let name = format!("stalls-test-{}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let (directory, files) = match root.join("cpu/cgroup.procs").exists() {
            true => (root.join("cpu"), [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "10000")]),
            false => (root.to_owned(), [("cpu.max", "10000 100000"), ("cpu.max.burst", "0")]),
        };
        let group = directory.join(name);
        std::fs::create_dir(&group).ok()?;
        let group = Throttled(group);
        files.iter().all(|(file, text)| std::fs::write(group.0.join(file), text).is_ok()).then_some(group)
    }
}

impl Drop for Throttled {
    fn drop(&mut self) {
        // It is empty: its only process has been waited for.
        _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
#[ignore = "run by another test, in a group with little CPU time"]
fn throttled_scene() {
    let runtime = multi_thread(2);
    let metrics = build(RuntimeMetrics::builder().runtime("", runtime.handle()));
    yielding(&runtime);
    thread::sleep(Duration::from_secs(5));
    print("throttled", stalls_by_cause(&metrics));
    runtime.shutdown_background();
}

#[test]
fn a_process_whose_cpu_time_is_limited_is_neither_blocked_nor_running() {
    let Some(group) = Throttled::new() else {
        skip::skip("no control group with a quota can be made (not root, or no hierarchy)");
        return;
    };
    repeat_when_late(|| {
        let scene = child::child("throttled_scene");
        let join = format!(r#"echo $$ > '{}/cgroup.procs' && exec "$0" "$@""#, group.0.display());
        let mut command = Command::new("sh");
        command.args(["-c", &join]).arg(scene.get_program()).args(scene.get_args());
        let lines = child::results(&mut command);
        let stat = std::fs::read_to_string(group.0.join("cpu.stat")).unwrap();
        let throttled = stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse::<u64>().ok());
        assert!(throttled.is_some_and(|times| times >= 10), "{stat}");
        // A thread that is not given a CPU for the threshold is starved, which is true.
        assert!(lines.iter().any(|line| line.starts_with("throttled 0 0 ")), "{lines:?}");
    });
}
