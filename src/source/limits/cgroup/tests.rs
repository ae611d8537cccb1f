//! Reads the control groups of made-up machines from a directory.

use std::time::Duration;

use tempfile::TempDir;

use super::groups::*;
use super::lookup::Version;

const V2: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

/// A root directory with these memberships, mounts and files below `/sys/fs/cgroup`.
struct Machine(TempDir);

impl Machine {
    fn new(memberships: &str, mounts: &str, files: &[(&str, &str)]) -> Self {
        let machine = Machine(tempfile::tempdir().unwrap());
        machine.write("proc/self/cgroup", memberships);
        machine.write("proc/self/mountinfo", mounts);
        for (path, text) in files {
            machine.write(&format!("sys/fs/cgroup/{path}"), text);
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn cgroups(&self) -> Cgroups {
        let mut cgroups = Cgroups::at(self.0.path());
        cgroups.refresh();
        cgroups
    }

    fn limits(&self) -> (Option<u64>, Option<f64>, Option<Throttling>) {
        let mut cgroups = self.cgroups();
        let (quota, throttling) = cgroups.cpu();
        (cgroups.memory_limit(), quota, throttling)
    }
}

fn throttling(count: u64, microseconds: u64) -> Option<Throttling> {
    Some(Throttling { count, time: Duration::from_micros(microseconds) })
}

#[test]
fn version_2_the_smallest_memory_limit_on_the_way_up_counts() {
    let files = [
        ("memory.max", "1000\n"),
        ("shop.slice/memory.max", "300\n"),
        ("shop.slice/web.service/memory.max", "max\n"),
        ("other.slice/memory.max", "7\n"),
    ];
    let machine = Machine::new("0::/shop.slice/web.service\n", V2, &files);
    assert_eq!(machine.cgroups().memory_limit(), Some(300));
    machine.write("sys/fs/cgroup/shop.slice/web.service/memory.max", "200\n");
    assert_eq!(machine.cgroups().memory_limit(), Some(200));
}

#[test]
fn version_2_the_kernel_throttles_at_memory_high_so_that_it_is_a_limit() {
    let files = [
        ("a/memory.max", "max\n"),
        ("a/memory.high", "500\n"),
        ("a/b/memory.max", "700\n"),
        ("a/b/memory.high", "max\n"),
    ];
    let machine = Machine::new("0::/a/b\n", V2, &files);
    assert_eq!(machine.cgroups().memory_limit(), Some(500));
    machine.write("sys/fs/cgroup/a/b/memory.high", "600\n");
    assert_eq!(machine.cgroups().memory_limit(), Some(500));
    machine.write("sys/fs/cgroup/a/b/memory.high", "400\n");
    assert_eq!(machine.cgroups().memory_limit(), Some(400));
    machine.write("sys/fs/cgroup/a/b/memory.max", "300\n");
    assert_eq!(machine.cgroups().memory_limit(), Some(300));
}

#[test]
fn version_2_without_limit_and_quota_has_no_value() {
    let files = [
        ("a/memory.max", "max\n"),
        ("a/memory.high", "max\n"),
        ("a/cpu.max", "max 100000\n"),
        ("a/cpu.stat", "usage_usec 5\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"),
    ];
    let machine = Machine::new("0::/a\n", V2, &files);
    let cgroups = machine.cgroups();
    assert!(matches!(&cgroups.memory, MemoryFiles::V2(limits) if !limits.is_empty()));
    assert!(!cgroups.cpu.is_empty());
    assert_eq!(machine.limits(), (None, None, None));
}

#[test]
fn version_2_each_quota_on_the_way_up_throttles_and_the_smallest_counts() {
    let stat =
        |count, time| format!("usage_usec 5\nnr_periods 9\nnr_throttled {count}\nthrottled_usec {time}\n");
    let (own, above, top) = (stat(2, 30), stat(4, 500), stat(8, 7000));
    let files = [
        ("a/cpu.max", "250000 100000\n"),
        ("a/cpu.stat", top.as_str()),
        ("a/b/cpu.max", "max 100000\n"),
        ("a/b/cpu.stat", above.as_str()),
        ("a/b/c/cpu.max", "75000 50000\n"),
        ("a/b/c/cpu.stat", own.as_str()),
    ];
    assert_eq!(Machine::new("0::/a/b/c\n", V2, &files).limits(), (None, Some(1.5), throttling(10, 7030)));
}

#[test]
fn version_1_the_kernel_has_walked_up() {
    let mounts = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
    let files = [
        ("memory/docker/4f/memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory/docker/4f/memory.stat", "cache 1\nhierarchical_memory_limit 4096\ntotal_cache 1\n"),
        ("cpu,cpuacct/docker/4f/cpu.cfs_quota_us", "50000\n"),
        ("cpu,cpuacct/docker/4f/cpu.cfs_period_us", "100000\n"),
        ("cpu,cpuacct/docker/4f/cpu.stat", "nr_periods 9\nnr_throttled 3\nthrottled_time 5000\n"),
        ("cpu,cpuacct/docker/cpu.cfs_quota_us", "-1\n"),
        ("cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n"),
    ];
    let machine = Machine::new("5:memory:/docker/4f\n1:cpu,cpuacct:/docker/4f\n", mounts, &files);
    assert_eq!(machine.limits(), (Some(4096), Some(0.5), throttling(3, 5)));
}

#[test]
fn version_1_the_largest_number_means_no_limit() {
    let mounts = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    for (limit, seen) in [
        ("9223372036854771712", None),
        ("9223372036854710272", None),
        ("18446744073709551615", None),
        ("-1", None),
        ("", None),
        ("9223372036854644736", Some(9_223_372_036_854_644_736)),
        ("0", Some(0)),
    ] {
        let machine = Machine::new("5:memory:/\n", mounts, &[("memory/memory.limit_in_bytes", limit)]);
        assert_eq!(machine.cgroups().memory_limit(), seen, "{limit:?}");
    }
}

#[test]
fn hybrid_each_controller_is_read_where_it_is() {
    let mounts = format!(
        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n{}",
        V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    );
    let files = [
        ("memory/a/memory.limit_in_bytes", "4096\n"),
        ("unified/b/memory.max", "1\n"),
        ("unified/b/cpu.max", "300000 100000\n"),
    ];
    let machine = Machine::new("4:memory:/a\n0::/b\n", &mounts, &files);
    assert_eq!(machine.limits(), (Some(4096), Some(3.0), None), "a quota is a quota without its statistics");
}

#[test]
fn a_container_sees_its_own_part_of_the_tree() {
    let part = V2.replace(" / /sys/fs/cgroup", r" /pod/4f /sys/fs/cgroup/my\040part");
    let files =
        [("my part/memory.max", "500\n"), ("my part/inner/memory.max", "max\n"), ("memory.max", "1\n")];
    // Without a cgroup namespace for the container, the names are those of the host.
    assert_eq!(Machine::new("0::/pod/4f\n", &part, &files).cgroups().memory_limit(), Some(500));
    assert_eq!(Machine::new("0::/pod/4f/inner\n", &part, &files).cgroups().memory_limit(), Some(500));
    // With a namespace, the names start at the container.
    assert_eq!(Machine::new("0::/\n", V2, &[("memory.max", "500\n")]).cgroups().memory_limit(), Some(500));
    // The mount shows another group's part, or one above the root of the namespace.
    for memberships in ["0::/pod/5a\n", "0::/\n", "0::/../4f\n", "0::/gone (deleted)\n"] {
        assert_eq!(
            Machine::new(memberships, &part, &files).cgroups().memory_limit(),
            None,
            "{memberships:?}"
        );
    }
}

#[test]
fn the_mount_that_shows_most_is_read() {
    let part = V2.replace(" / /sys/fs/cgroup", " /a/b /sys/fs/cgroup/part");
    let gone = V2.replace("/sys/fs/cgroup", "/no/longer/there");
    let files = [("a/memory.max", "10\n"), ("a/b/memory.max", "max\n"), ("part/memory.max", "20\n")];
    for mounts in [[&*part, V2, &gone].concat(), [V2, &gone, &part].concat()] {
        assert_eq!(Machine::new("0::/a/b\n", &mounts, &files).cgroups().memory_limit(), Some(10));
    }
}

#[test]
fn a_process_that_is_moved_is_followed() {
    let files = [("a/memory.max", "10\n"), ("b/memory.max", "20\n")];
    let machine = Machine::new("0::/a\n", V2, &files);
    let mut cgroups = machine.cgroups();
    assert_eq!(cgroups.memory_limit(), Some(10));
    machine.write("proc/self/cgroup", "0::/b\n");
    cgroups.refresh();
    assert_eq!(cgroups.memory_limit(), Some(20));
    machine.write("proc/self/cgroup", "");
    cgroups.refresh();
    assert_eq!(cgroups.memory_limit(), None);
}

#[test]
fn unreadable_files_have_no_value() {
    let nothing = tempfile::tempdir().unwrap();
    let mut cgroups = Cgroups::at(nothing.path());
    cgroups.refresh();
    assert_eq!((cgroups.memory_limit(), cgroups.cpu()), (None, (None, None)));

    for text in ["", "\n", "max", "100000", "100000 0", "x 100000", "-1 100000", "1 2 3", " ", "\u{fffd} 1"] {
        let files = [("memory.max", "\u{0}\n"), ("cpu.max", text), ("cpu.stat", "nr_throttled 1\n")];
        assert_eq!(Machine::new("0::/\n", V2, &files).limits(), (None, None, None), "{text:?}");
    }
}

#[test]
fn truncated_statistics_have_no_value() {
    let whole = "nr_periods 9\nnr_throttled 3\nthrottled_usec 5";
    assert_eq!(throttled(whole.as_bytes(), Version::V2), throttling(3, 5));
    for length in 0..whole.len() {
        assert_eq!(throttled(&whole.as_bytes()[..length], Version::V2), None, "cut after {length} bytes");
    }
    assert_eq!(throttled(whole.as_bytes(), Version::V1), None);
}

/// Reads everything twice and returns the names of the files of which there was a warning.
fn warnings(machine: &Machine) -> Vec<String> {
    let mut cgroups = machine.cgroups();
    for _ in 0..2 {
        cgroups.memory_limit();
        cgroups.cpu();
    }
    cgroups.malformed().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_malformed_limit_is_skipped_with_one_warning_and_no_limit_is_none() {
    let files = |memory, cpu| {
        let files = [
            ("memory.max", memory),
            ("memory.high", "max\n"),
            ("cpu.max", cpu),
            ("cpu.stat", "usage_usec 1\n"),
        ];
        Machine::new("0::/\n", V2, &files)
    };
    assert_eq!(warnings(&files("max\n", "max 100000\n")), [""; 0]);
    assert_eq!(warnings(&files("1000\n", "50000 100000\n")), [""; 0]);
    assert_eq!(warnings(&files("1 GB\n", "half\n")), ["memory.max", "cpu.max"]);
    assert_eq!(warnings(&files("", "max x\n")), ["memory.max", "cpu.max"]);
    let machine = files("lots\n", "max 100000\n");
    machine.write("sys/fs/cgroup/memory.high", "700\n");
    assert_eq!(machine.cgroups().memory_limit(), Some(700), "the other file counts");
}
