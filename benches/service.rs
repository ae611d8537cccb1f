//! Counts the instructions of a service for each request under callgrind: bare, with everything on, and with the least that
//! counting can cost.

use std::path::Path;

use benches::limit;

/// The limit for the added instructions, in percent.
const LIMIT: f64 = 1.0;

fn main() {
    println!("Instructions for each request of a service that reads and writes JSON, under callgrind");
    if [1, 20].map(compare).contains(&None) {
        println!("skipped: valgrind is not installed");
    }
}

/// Prints the comparison for orders of a number of lines.
fn compare(lines: usize) -> Option<()> {
    let bare = each(env!("CARGO_BIN_EXE_service_bare"), lines)?;
    let least = each(env!("CARGO_BIN_EXE_service_least"), lines)?;
    let measured = each(env!("CARGO_BIN_EXE_service_measured"), lines)?;
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
    if let [allocations, reallocations] = *measured.printed {
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
