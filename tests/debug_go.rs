//! `go tool pprof` reads every profile from its address, and the folded lines say the same.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::alloc::System;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::profile::{self, HeapProfile, Profile};
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, Sampled, TaskExt, debug};
use support::http::get;

#[global_allocator]
static ALLOCATOR: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

/// The endpoints, the function or the task that each must show, and where Go's tool shows it.
const ENDPOINTS: [(&str, &str, &str); 8] = [
    ("heap", "holding_function", "-top"),
    ("allocs", "holding_function", "-top"),
    ("stalls", "blocking_function", "-top"),
    ("block", "blocking_function", "-top"),
    ("tasks", "waiting-task", "-tags"),
    ("goroutine", "waiting-task", "-tags"),
    ("threads", "waiting_function", "-top"),
    ("profile?seconds=2", "busy_function", "-top"),
];

#[inline(never)]
fn holding_function() -> Vec<Vec<u8>> {
    black_box((0..100).map(|_| vec![1; 100_000]).collect())
}

#[inline(never)]
fn blocking_function(time: Duration) {
    thread::sleep(time);
    black_box(time);
}

#[inline(never)]
fn waiting_function(stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        thread::park();
    }
}

#[inline(never)]
fn busy_function(stop: &AtomicBool) {
    let mut sum = 0_u64;
    while !stop.load(Relaxed) {
        (0..10_000_u64).for_each(|number| sum = black_box(sum.wrapping_mul(31).wrapping_add(number)));
    }
}

/// Returns `go tool pprof`. `go` would start the tool as another process, which would outlive it.
fn pprof(directory: &Path, arguments: &[&str]) -> Command {
    static TOOL: LazyLock<String> = LazyLock::new(|| {
        let output = Command::new("go").args(["tool", "-n", "pprof"]).output().expect("go runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    });
    let mut command = Command::new(&*TOOL);
    // Names are looked up in an executable that is not optimised, which may take long.
    command.arg("-timeout=300").args(arguments);
    command.env("PPROF_TMPDIR", directory).stdin(Stdio::null());
    command
}

fn output(mut command: Command) -> String {
    let output = command.output().expect("go runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Go's user interface in the browser.
struct Interface(Child, SocketAddr);

impl Interface {
    fn start(directory: &Path, url: &str) -> Self {
        let mut command = pprof(directory, &["-no_browser", "-http=127.0.0.1:", url]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("go runs");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let address = lines.find_map(|line| {
            line.ok()?.split_once("Serving web UI on http://").map(|(_, address)| address.trim().to_owned())
        });
        // The rest must be read, so that the program is not blocked.
        thread::spawn(move || lines.for_each(drop));
        Interface(child, address.expect("it serves").parse().expect("an address"))
    }

    /// Returns a page. The interface may take a moment until it listens.
    fn page(&self, path: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(self.1).is_err() {
            assert!(Instant::now() < deadline, "it listens");
            thread::sleep(Duration::from_millis(20));
        }
        let answer = get(self.1, path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the lines that [`Profile::to_folded`] writes, from the output of `go tool pprof -raw`.
fn folded(raw: &str, value: usize) -> Vec<String> {
    let section = |from: &str, to: &str| {
        let after = raw.split_once(from).unwrap_or_else(|| panic!("no {from}: {raw}")).1;
        after.split_once(to).map_or(after, |(section, _)| section).to_owned()
    };
    // The functions of each location, the innermost first.
    let mut locations: Vec<(usize, Vec<String>)> = Vec::new();
    for line in section("\nLocations\n", "\nMappings\n").lines() {
        let head =
            line.get(..7).and_then(|head| head.trim().strip_suffix(':')).and_then(|id| id.parse().ok());
        if let Some(id) = head {
            locations.push((id, Vec::new()));
        }
        let rest = line.get(7..).unwrap_or_default().trim();
        let rest = if head.is_some() { rest.split_once(' ').map_or("", |(_, rest)| rest) } else { rest };
        let rest = match rest.strip_prefix("M=") {
            Some(mapped) => mapped.split_once(' ').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let name = rest.rsplit_once(" s=").and_then(|(name, _)| name.rsplit_once(' ')).map(|(name, _)| name);
        if let (Some(name), Some((_, names))) = (name, locations.last_mut()) {
            names.push(name.replace(';', ":"));
        }
    }
    let addresses = section("\nLocations\n", "\nMappings\n");
    let address = |id: usize| {
        let line = addresses.lines().find(|line| line.trim_start().starts_with(&format!("{id}: ")));
        let text = line.and_then(|line| line.split("0x").nth(1)?.split(' ').next()).expect("an address");
        // Folded lines have the return address, pprof files the call.
        format!("{:#x}", usize::from_str_radix(text, 16).expect("a number") + 1)
    };
    let samples = section("\nSamples:\n", "\nLocations\n");
    let mut lines = Vec::new();
    for line in samples.lines() {
        let Some((values, ids)) = line.split_once(": ").filter(|(values, _)| {
            values.split_whitespace().all(|value| value.parse::<i64>().is_ok()) && !values.trim().is_empty()
        }) else {
            continue;
        };
        let mut names: Vec<String> = Vec::new();
        for id in ids.split_whitespace().map(|id| id.parse::<usize>().expect("a number")) {
            let of = &locations.iter().find(|(known, _)| *known == id).expect("a location").1;
            if of.is_empty() { names.push(address(id)) } else { names.extend(of.iter().cloned()) }
        }
        names.reverse();
        let value = values.split_whitespace().nth(value).expect("a value");
        lines.push(format!("{} {value}", names.join(";")));
    }
    lines
}

/// Returns the value of each stack. Lines of one stack have different labels.
fn sums<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for line in lines {
        let (stack, value) = line.rsplit_once(' ').expect("a value");
        *sums.entry(stack.to_owned()).or_default() += value.parse::<i64>().expect("a number");
    }
    sums
}

fn assert_the_folded_lines_agree(directory: &Path, name: &str, profile: &Profile, value: usize) {
    let file = directory.join(format!("{name}.pb.gz"));
    std::fs::write(&file, profile.to_pprof()).unwrap();
    let raw = output(pprof(directory, &["-raw", "-symbolize=none", file.to_str().unwrap()]));
    let text = profile.to_folded();
    let (ours, go_s) = (sums(text.lines()), sums(folded(&raw, value).iter().map(String::as_str)));
    assert!(!ours.is_empty(), "{name} has samples");
    for (stack, value) in &ours {
        assert_eq!(go_s.get(stack), Some(value), "{name}: {stack}, of {:#?}", go_s.keys());
    }
    assert_eq!(go_s.len(), ours.len(), "{name}");
}

/// In one test, since it takes profiles of the whole process.
#[test]
fn go_reads_every_endpoint_and_folded_lines_agree() {
    if Command::new("go").arg("version").output().is_err() {
        support::skip::skip("there is no Go");
        return;
    }
    HeapProfile::start(65_536).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let metrics = RuntimeMetrics::builder()
        .runtime("service", runtime.handle())
        .build(&opentelemetry::global::meter("test"));
    let server = debug::serve("127.0.0.1:0", &metrics).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let kept = holding_function();
    let waiting_task = std::future::pending::<()>().with_task_name("waiting-task");
    let stop = Arc::new(AtomicBool::new(false));
    let start = |name: &str, run: fn(&AtomicBool)| {
        let stop = Arc::clone(&stop);
        thread::Builder::new().name(name.into()).spawn(move || run(&stop)).unwrap()
    };
    let (waiting, busy) = (start("waiting", waiting_function), start("busy", busy_function));
    let deadline = Instant::now() + Duration::from_secs(300);
    while !profile::stalls().to_folded().contains("blocking_function") {
        assert!(Instant::now() < deadline, "a stall has a stack");
        let _ = runtime.block_on(runtime.spawn(async { blocking_function(Duration::from_secs(2)) }));
    }

    for (endpoint, expected, report) in ENDPOINTS {
        let url = format!("http://{}/debug/pprof/{endpoint}", server.local_addr());
        let report = output(pprof(directory.path(), &[report, "-cum", "-nodecount=100000", &url]));
        assert!(report.contains(expected), "{endpoint} has no {expected}: {report}");
        if matches!(endpoint, "block" | "goroutine") {
            // Another name of the same endpoint.
            continue;
        }
        let page = Interface::start(directory.path(), &url).page("/ui/top");
        assert!(page.contains("<html"), "{endpoint}: {page}");
        // The page lists functions. The names of tasks are labels.
        assert!(expected == "waiting-task" || page.contains(expected), "{endpoint}: {page}");
    }
    for (name, profile, value) in [
        ("heap", profile::heap(), 3),
        ("allocs", profile::allocs(), 1),
        ("stalls", profile::stalls(), 1),
        ("tasks", profile::tasks(), 0),
        ("threads", profile::threads(), 0),
        ("cpu", profile::cpu(Duration::from_secs(1)).unwrap(), 1),
    ] {
        assert_the_folded_lines_agree(directory.path(), name, &profile, value);
    }
    stop.store(true, Relaxed);
    waiting.thread().unpark();
    waiting.join().unwrap();
    busy.join().unwrap();
    server.stop();
    drop((kept, waiting_task));
}
