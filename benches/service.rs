//! What it costs a whole service to be measured: instructions for each request, under callgrind, without and with
//! everything on.

use std::path::Path;

use benches::limit::{PAIR, REALLOC};

/// How many percent more are aimed at.
const LIMIT: f64 = 1.0;

fn main() {
    let bare = each(env!("CARGO_BIN_EXE_service_bare"));
    let measured = each(env!("CARGO_BIN_EXE_service_measured"));
    let (Some(bare), Some(measured)) = (bare, measured) else {
        println!("skipped: valgrind is not installed");
        return;
    };
    let percent = |more: f64| more / bare.instructions * 100.0;
    let more = percent(measured.instructions - bare.instructions);
    println!("Instructions for each request of a service that takes and gives JSON, under callgrind");
    println!("bare {:.0}, with everything on {:.0}: {more:+.2} %", bare.instructions, measured.instructions);
    if more > LIMIT {
        println!("over the {LIMIT} % aimed at");
    }
    if let [allocations, reallocations] = *measured.told {
        let aims = percent(allocations * PAIR + reallocations * REALLOC);
        println!(
            "A request makes {allocations:.0} allocations and {reallocations:.0} reallocations, whose counting at {PAIR} and \
             {REALLOC} instructions would be {aims:+.2} %"
        );
    }
}

/// What a request takes.
struct Each {
    instructions: f64,
    /// The numbers that the program tells.
    told: Vec<f64>,
}

/// The difference of two runs, so that what starts and ends a program is not in it.
fn each(program: &str) -> Option<Each> {
    let run = |count: usize| {
        let (instructions, printed) = benches::callgrind(Path::new(program), &[&count.to_string()])?;
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
