//! `rust.memory.limit`, `rust.cpu.*` and `rust.file_descriptor.limit` in processes with limits.

#![cfg(target_os = "linux")]

use support::snapshot;

use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use snapshot::{metrics, printed_by, values};

/// A control group of version 1, made for a test if the machine allows it.
struct Group(PathBuf);

impl Group {
    fn new(controller: &str, files: &[(&str, &str)]) -> Option<Self> {
        let hierarchy = PathBuf::from("/sys/fs/cgroup").join(controller);
        if !hierarchy.join("cgroup.procs").exists() {
            eprintln!("not checked: no hierarchy of version 1 for {controller} here");
            return None;
        }
        let group = Group(hierarchy.join(format!("limits-test-{}-{}", std::process::id(), files[0].1)));
        if let Err(error) = std::fs::create_dir(&group.0) {
            eprintln!("not checked: {}: {error}", group.0.display());
            return None;
        }
        for (file, text) in files {
            std::fs::write(group.0.join(file), text).unwrap();
        }
        Some(group)
    }

    fn run(&self) -> std::collections::BTreeMap<String, f64> {
        let join = format!(r#"echo $$ > '{}/cgroup.procs' && exec "$0" "$@""#, self.0.display());
        printed_by(&["sh", "-c", &join])
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is empty, since its only process has ended.
        std::fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn the_number_of_cpus_is_that_of_std() {
    let count = values(&metrics().snapshot())["rust.cpu.count"];
    assert_eq!(count, std::thread::available_parallelism().unwrap().get() as f64);
}

#[test]
fn a_pinned_process_has_one_cpu() {
    let first =
        Command::new("sh").args(["-c", "taskset -cp $$ | sed 's/.*: *//;s/[-,].*//'"]).output().unwrap();
    let first = String::from_utf8(first.stdout).unwrap();
    assert_eq!(printed_by(&["taskset", "-c", first.trim()])["rust.cpu.count"], 1.0);
}

#[test]
fn the_soft_limit_on_file_descriptors_counts() {
    assert_eq!(printed_by(&["prlimit", "--nofile=64:128"])["rust.file_descriptor.limit"], 64.0);
    assert_eq!(printed_by(&["prlimit", "--nofile=65:65"])["rust.file_descriptor.limit"], 65.0);
}

#[test]
fn the_memory_limit_of_a_real_group_is_read() {
    let Some(outer) = Group::new("memory", &[("memory.limit_in_bytes", "1073741824")]) else { return };
    assert_eq!(outer.run()["rust.memory.limit"], 1_073_741_824.0);
    let inner = Group(outer.0.join("inner"));
    std::fs::create_dir(&inner.0).unwrap();
    assert_eq!(inner.run()["rust.memory.limit"], 1_073_741_824.0, "the one above limits too");
    std::fs::write(inner.0.join("memory.limit_in_bytes"), "536870912").unwrap();
    assert_eq!(inner.run()["rust.memory.limit"], 536_870_912.0);
    drop(inner);
}

#[test]
fn the_quota_of_a_real_group_throttles() {
    let quota = [("cpu.cfs_quota_us", "20000"), ("cpu.cfs_period_us", "100000")];
    let Some(group) = Group::new("cpu", &quota) else { return };
    let values = group.run();
    assert_eq!(values["rust.cpu.count"], 1.0, "a fifth of a CPU is one");
    assert!(values["rust.cpu.throttles"] >= 1.0, "{values:?}");
    assert!(values["rust.cpu.throttled.time"] > 0.0, "{values:?}");
    // The throttling has gone on meanwhile.
    let stat = std::fs::read_to_string(group.0.join("cpu.stat")).unwrap();
    let after =
        |key| stat.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<f64>().ok()).unwrap();
    assert!(values["rust.cpu.throttles"] <= after("nr_throttled"));
    assert!(values["rust.cpu.throttled.time"] <= after("throttled_time") / 1e9 + 1e-9);
}

#[test]
fn without_a_quota_there_is_no_throttling_to_report() {
    let Some(group) = Group::new("cpu", &[("cpu.cfs_quota_us", "-1")]) else { return };
    let values = group.run();
    assert!(values.contains_key("rust.cpu.count"));
    assert!(!values.keys().any(|name| name.starts_with("rust.cpu.thrott")), "{values:?}");
}

#[test]
#[ignore = "run by the other tests, under their conditions"]
fn print() {
    // More CPU than the quota of a period, however long that takes on a busy machine.
    while cpu_time() < Duration::from_millis(60) {
        (0..10_000).for_each(|n| _ = black_box(n));
    }
    snapshot::print();
}

/// Returns the CPU time of the calling thread.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
