//! Samples what the process uses, prints the table, and compares the quarters of a run.

#![allow(unsafe_code, reason = "`malloc_trim` and `mallopt` have no safe interface")]

use std::fs;
use std::time::{Duration, Instant};

use crate::laws::number;
use crate::soak::{Done, Soak};

/// The growth of a median under load that is allowed from the second quarter of a run to the last one: a part of the median,
/// and bytes. A profile that is being encoded holds the executable's line tables, some 40 MB, and several may be at a time.
const RESIDENT_GROWTH: (f64, f64) = (0.25, 64e6);
const USED_GROWTH: (f64, f64) = (0.25, 64e6);

/// The growth at rest that is allowed from the first rest to the last one, in bytes. Tables of names, stacks and runtimes have
/// limits that a run reaches only later. The samples of the heap profile have pages of their own, 64 MiB at most, which stay
/// with the process once they were touched.
const RESIDENT_GROWTH_AT_REST: u64 = 64 << 20;
const USED_GROWTH_AT_REST: u64 = 1_000_000;

/// A figure with its limit of growth.
type Row = (&'static str, fn(&Figures) -> f64, Option<(f64, f64)>);

/// What the process uses at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Bytes of physical memory.
    pub resident: u64,
    /// Bytes allocated, by the library's count.
    pub used: u64,
    pub descriptors: usize,
    pub threads: usize,
}

/// Has the system's allocator give freed memory back at once, so that resident memory shows what the process holds.
///
/// Otherwise glibc keeps up to 64 MB of freed memory at the end of each heap of threads, after it has freed a block as large
/// as half of that; `malloc_trim` leaves that there.
pub fn keep_no_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes two numbers and may be called at any time.
    unsafe {
        // A limit that is set is no longer adjusted.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
}

impl Figures {
    /// Returns the figures after the memory that the system's allocator keeps was given back.
    pub fn at_rest(soak: &Soak) -> Self {
        #[cfg(target_env = "gnu")]
        // SAFETY: it takes a number and may be called at any time.
        unsafe {
            libc::malloc_trim(0);
        }
        Self::read(soak)
    }

    pub fn read(soak: &Soak) -> Self {
        let resident = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = resident.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
        let used = soak.metrics.read("rust.memory.used").and_then(|reading| reading.value()?.as_u64());
        // The directory itself is open meanwhile.
        let descriptors = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() - 1);
        let threads = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        Figures { resident: pages * 4096, used: used.unwrap_or_default(), descriptors, threads }
    }
}

/// Compares the figures between the rounds: descriptors and threads are back to where they were after the warm-up, and memory
/// is nearly so.
pub fn check_rests(soak: &Soak, rests: &[Figures]) {
    let (Some(first), Some(last)) = (rests.first(), rests.last()) else { return };
    println!("\nat rest, after the warm-up and after each round");
    println!("{:>14}{:>14}{:>8}{:>9}", "resident, MB", "used, kB", "files", "threads");
    for Figures { resident, used, descriptors, threads } in rests {
        let used = *used as f64 / 1e3;
        println!("{:>14}{used:>14.1}{descriptors:>8}{threads:>9}", megabytes(*resident as f64));
        let no_more = *threads <= first.threads && *descriptors <= first.descriptors;
        soak.check(no_more, || {
            format!("more than after the warm-up is left: {threads} threads, {descriptors} files")
        });
    }
    // The samples' pages reach their number in the first round.
    let settled = rests.get(1).unwrap_or(first);
    soak.check(last.used <= first.used + USED_GROWTH_AT_REST, || "memory in use has grown".into());
    soak.check(last.resident <= settled.resident + RESIDENT_GROWTH_AT_REST, || {
        "resident memory has grown".into()
    });
}

/// Returns the names of the process's threads.
pub fn thread_names() -> Vec<String> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let name = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("comm")).ok();
    let mut names: Vec<_> = threads.flatten().filter_map(name).map(|name| name.trim().to_owned()).collect();
    names.sort();
    names
}

/// The figures of a run under load.
pub struct Series {
    start: Instant,
    samples: Vec<Figures>,
}

impl Series {
    /// Prints the head of the table.
    pub fn start() -> Self {
        print!("{:>7}{:>10}{:>10}{:>6}{:>9}", "s", "resident", "used", "files", "threads");
        Done::NAMES.iter().for_each(|name| print!("{name:>12}"));
        println!();
        Series { start: Instant::now(), samples: Vec::new() }
    }

    /// Returns the time between two samples of a round.
    pub fn interval(&self, round: Duration) -> Duration {
        (round / 60).clamp(Duration::from_secs(1), Duration::from_secs(5))
    }

    pub fn take(&mut self, soak: &Soak) {
        self.samples.push(Figures::read(soak));
    }

    /// Drops the samples of the warm-up.
    pub fn forget(&mut self) {
        self.samples.clear();
    }

    pub fn print(&self, soak: &Soak) {
        let Some(last) = self.samples.last() else { return };
        let (resident, used) = (megabytes(last.resident as f64), megabytes(last.used as f64));
        let (seconds, files) = (self.start.elapsed().as_secs(), last.descriptors);
        print!("{seconds:>7}{resident:>10}{used:>10}{files:>6}{:>9}", last.threads);
        soak.done.values().iter().for_each(|value| print!("{value:>12}"));
        println!();
    }

    /// Compares the medians of the second and the last quarter.
    pub fn check_growth(&self, soak: &Soak) {
        let quarter = self.samples.len() / 4;
        let (Some(second), Some(last)) =
            (self.samples.get(quarter..2 * quarter), self.samples.get(3 * quarter..))
        else {
            return;
        };
        let rows: [Row; 4] = [
            ("resident memory, MB", |figures| figures.resident as f64, Some(RESIDENT_GROWTH)),
            ("memory in use, MB", |figures| figures.used as f64, Some(USED_GROWTH)),
            ("files", |figures| figures.descriptors as f64, None),
            ("threads", |figures| figures.threads as f64, None),
        ];
        println!("\nmedians of {} samples a quarter", second.len());
        println!("{:<24}{:>12}{:>12}{:>12}", "", "second", "last", "limit");
        for (name, value, growth) in rows {
            let (before, after) = (median(second, value), median(last, value));
            let limit = growth.map(|(part, bytes)| before * (1.0 + part) + bytes);
            let shown = |value: f64| match growth {
                Some(_) => megabytes(value),
                None => format!("{value:.0}"),
            };
            println!(
                "{name:<24}{:>12}{:>12}{:>12}",
                shown(before),
                shown(after),
                limit.map(shown).unwrap_or_default()
            );
            soak.check(limit.is_none_or(|limit| after <= limit), || {
                format!("{name} grew from {} to {}", shown(before), shown(after))
            });
        }
    }
}

fn megabytes(bytes: f64) -> String {
    format!("{:.1}", bytes / 1e6)
}

fn median(samples: &[Figures], value: fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Prints how the work was counted in the end.
pub fn print_counts(soak: &Soak) {
    let snapshot = soak.metrics.snapshot();
    println!("\ncounted since the start of the process");
    for name in [
        "rust.memory.allocations",
        "rust.memory.deallocations",
        "rust.memory.reallocations",
        "rust.memory.allocation.failures",
        "rust.memory.allocated",
        "rust.task.spawned",
        "rust.task.polls",
    ] {
        println!("{name:<34}{:>18}", number(&snapshot, name).unwrap_or_default());
    }
}
