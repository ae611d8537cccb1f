//! What it costs a whole service to be measured: instructions for each request, under callgrind, without and with
//! everything on.

use std::process::Command;

/// How many percent more are aimed at.
const LIMIT: f64 = 1.0;

fn main() {
    let bare = instructions(env!("CARGO_BIN_EXE_service_bare"));
    let measured = instructions(env!("CARGO_BIN_EXE_service_measured"));
    let (Some(bare), Some(measured)) = (bare, measured) else {
        println!("skipped: valgrind is not installed");
        return;
    };
    let percent = (measured - bare) / bare * 100.0;
    println!("Instructions for each request of a service that takes and gives JSON, under callgrind");
    println!("bare {bare:.0}, with everything on {measured:.0}: {percent:+.2} %");
    if percent > LIMIT {
        println!("over the {LIMIT} % aimed at");
    }
}

/// The difference of two runs, so that what starts and ends a program is not in it.
fn instructions(program: &str) -> Option<f64> {
    let run = |count: usize| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", program, &count.to_string()])
            .output()
            .ok()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let (_, after) = told.split_once("Collected :")?;
        after.split_whitespace().next()?.parse::<f64>().ok()
    };
    const FEW: usize = 500;
    const MANY: usize = 3_500;
    Some((run(MANY)? - run(FEW)?) / (MANY - FEW) as f64)
}
