//! What it costs a whole service to be measured: instructions for each request, under callgrind, without and with
//! everything on, and with the least that can be called counting.

use std::path::Path;

use benches::limit;

/// How many percent more are aimed at.
const LIMIT: f64 = 1.0;

fn main() {
    println!("Instructions for each request of a service that takes and gives JSON, under callgrind");
    if [1, 20].map(compare).contains(&None) {
        println!("skipped: valgrind is not installed");
    }
}

/// Prints the comparison for orders of so many lines.
fn compare(lines: usize) -> Option<()> {
    let bare = each(env!("CARGO_BIN_EXE_service_bare"), lines)?;
    let least = each(env!("CARGO_BIN_EXE_service_least"), lines)?;
    let measured = each(env!("CARGO_BIN_EXE_service_measured"), lines)?;
    let percent = |more: f64| more / bare.instructions * 100.0;
    let more = |than: &Each| percent(than.instructions - bare.instructions);
    println!("\nAn order of {lines} lines");
    println!("bare                                             {:>8.0}", bare.instructions);
    println!(
        "with four thread-local sums that nobody can read {:>8.0} {:+.2} %",
        least.instructions,
        more(&least)
    );
    println!(
        "with everything on                               {:>8.0} {:+.2} %",
        measured.instructions,
        more(&measured)
    );
    if more(&measured) > LIMIT {
        println!("^ over the {LIMIT} % aimed at");
    }
    if let [allocations, reallocations] = *measured.told {
        let (pair, realloc) = limit::of("System");
        let aims = percent(allocations * pair + reallocations * realloc);
        println!(
            "{allocations:.0} allocations and {reallocations:.0} reallocations, which at {pair} and {realloc} instructions would be \
             {aims:+.2} %"
        );
    }
    Some(())
}

/// What a request takes.
struct Each {
    instructions: f64,
    /// The numbers that the program tells.
    told: Vec<f64>,
}

/// The difference of two runs, so that what starts and ends a program is not in it.
fn each(program: &str, lines: usize) -> Option<Each> {
    let run = |count: usize| {
        let arguments = [count, lines].map(|number| number.to_string());
        let (instructions, printed) = benches::callgrind(Path::new(program), &arguments)?;
        let told = printed.lines().filter_map(|line| line.parse().ok()).collect();
        Some(Each { instructions, told })
    };
    const FEW: usize = 500;
    const MANY: usize = 3_500;
    let (few, many) = (run(FEW)?, run(MANY)?);
    let each = |few: f64, many: f64| (many - few) / (MANY - FEW) as f64;
    let told = few.told.iter().zip(&many.told).map(|(few, many)| each(*few, *many)).collect();
    Some(Each { instructions: each(few.instructions, many.instructions), told })
}
