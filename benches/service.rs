//! Counts the instructions of a service for each request under callgrind: bare, with everything on, with a heap profile too, and
//! with the least that counting can cost. Then compares the resident memory with and without a heap profile.

use std::path::Path;
use std::process::Command;

use benches::limit;

/// The limit for the added instructions, in percent.
const LIMIT: f64 = 1.0;
/// The limit for the instructions that a heap profile adds to counting, in percent.
const PROFILE_LIMIT: f64 = 0.5;
/// The limit for the resident memory that a heap profile adds: a part, and bytes.
const MEMORY_LIMIT: (f64, f64) = (0.01, 4e6);

fn main() {
    println!("Instructions for each request of a service that reads and writes JSON, under callgrind");
    if [1, 20].map(compare).contains(&None) {
        println!("skipped: valgrind is not installed");
    }
    memory();
}

/// Compares the resident memory after many requests, the median of several runs in turn.
fn memory() {
    const RUNS: usize = 7;
    let run = |program: &str| {
        let output = Command::new(program).args(["50000", "20"]).output().expect("it runs");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        printed.lines().last().and_then(|line| line.parse::<f64>().ok()).expect("its resident memory")
    };
    let programs = [env!("CARGO_BIN_EXE_service_measured"), env!("CARGO_BIN_EXE_service_sampled")];
    let mut runs: Vec<_> = (0..RUNS).map(|_| programs.map(run)).collect();
    let [counted, sampled] = [0, 1].map(|index: usize| {
        runs.sort_by(|one, other| one[index].total_cmp(&other[index]));
        runs[RUNS / 2][index]
    });
    let (part, fixed) = MEMORY_LIMIT;
    println!(
        "\nResident memory after 50 000 orders of 20 lines: {:.1} MB, with a heap profile {:+.2} MB",
        counted / 1e6,
        (sampled - counted) / 1e6
    );
    if sampled > counted * (1.0 + part) + fixed {
        println!("^ above the limit of {:.0} % + {:.0} MB", part * 100.0, fixed / 1e6);
    }
}

/// Prints the comparison for orders of a number of lines.
fn compare(lines: usize) -> Option<()> {
    let bare = each(env!("CARGO_BIN_EXE_service_bare"), lines)?;
    let least = each(env!("CARGO_BIN_EXE_service_least"), lines)?;
    let measured = each(env!("CARGO_BIN_EXE_service_measured"), lines)?;
    let sampled = each(env!("CARGO_BIN_EXE_service_sampled"), lines)?;
    let percent = |more: f64| more / bare.instructions * 100.0;
    let more = |than: &Each| percent(than.instructions - bare.instructions);
    println!("\nAn order of {lines} lines");
    println!("bare                                             {:>8.0}", bare.instructions);
    println!(
        "four thread-local sums without a reader          {:>8.0} {:+.2} %",
        least.instructions,
        more(&least)
    );
    println!(
        "everything on                                   {:>8.0} {:+.2} %",
        measured.instructions,
        more(&measured)
    );
    if more(&measured) > LIMIT {
        println!("^ above the limit of {LIMIT} %");
    }
    let added = (sampled.instructions / measured.instructions - 1.0) * 100.0;
    println!(
        "everything on and a heap profile                 {:>8.0} {added:+.2} % above everything on",
        sampled.instructions
    );
    if added > PROFILE_LIMIT {
        println!("^ above the limit of {PROFILE_LIMIT} %");
    }
    if let [allocations, reallocations, _] = *measured.printed {
        let (pair, realloc) = limit::of("System").aim;
        let aims = percent(allocations * pair + reallocations * realloc);
        println!(
            "{allocations:.0} allocations and {reallocations:.0} reallocations, which at {pair} and {realloc} instructions would be \
             {aims:+.2} %"
        );
    }
    Some(())
}

/// The cost of a request.
struct Each {
    instructions: f64,
    /// The numbers that the program prints.
    printed: Vec<f64>,
}

/// Returns the difference of two runs, which leaves out the start and the end of the program.
fn each(program: &str, lines: usize) -> Option<Each> {
    let run = |count: usize| {
        let arguments = [count, lines].map(|number| number.to_string());
        let (instructions, printed) = benches::callgrind(Path::new(program), &arguments)?;
        let printed = printed.lines().filter_map(|line| line.parse().ok()).collect();
        Some(Each { instructions, printed })
    };
    const FEW: usize = 500;
    const MANY: usize = 3_500;
    let (few, many) = (run(FEW)?, run(MANY)?);
    let each = |few: f64, many: f64| (many - few) / (MANY - FEW) as f64;
    let printed = few.printed.iter().zip(&many.printed).map(|(few, many)| each(*few, *many)).collect();
    Some(Each { instructions: each(few.instructions, many.instructions), printed })
}
