//! A small service with two leaks and a stall, which shows its own metrics in the terminal.
//!
//! `cargo run -p demo [-- --for 10s]`
//!
//! Without `OTEL_EXPORTER_OTLP_ENDPOINT` it receives its own exports and shows them. With it, the exports go there, and the
//! terminal shows the same numbers. The debug page shows the lines of code behind them.

mod load;
mod readable;
mod screen;
mod series;
mod summary;
mod table;
mod trend;

use std::alloc::System;
use std::error::Error;
use std::fs;
use std::future::pending;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::{
    CountingAllocator, RuntimeMetrics, Sampled, debug, otlp, profile,
};
use screen::Screen;
use series::History;
use support::receiver::Receiver;
use tokio::time::{MissedTickBehavior, interval, sleep};

#[global_allocator]
static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

/// One sample in 64 KiB on average: a short run needs more samples than one in 512 KiB.
const HEAP_PROFILE: u64 = 64 * 1024;

const USAGE: &str = "\
A small service with two leaks and a stall, which shows its own metrics.

usage: demo [--for TIME] [--page ADDRESS] [--flame FILE]

  --for TIME       end after this time, such as 10s or 2min; without it, Ctrl-C
                   ends the demo
  --page ADDRESS   serve the debug page there; without it, on port 6060 of
                   127.0.0.1, or on another port if that one is taken
  --flame FILE     at the end, draw the memory in use as a flame graph
  -h, --help       show this text

With OTEL_EXPORTER_OTLP_ENDPOINT set, the metrics are exported there too.";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    let result = match command(std::env::args().skip(1)) {
        Ok(Command::Help) => writeln!(stdout(), "{USAGE}").map_err(Into::into),
        Ok(Command::Run(options)) => run(options).await,
        Err(error) => {
            let _ = writeln!(stderr(), "{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has seen enough.
        Err(error) if is_closed_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "the demo failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

async fn run(options: Options) -> Result<()> {
    let has_endpoint = std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some();
    if has_endpoint {
        ship(&options).await?
    } else {
        receive(&options).await?
    }
    if let Some(file) = &options.flame {
        fs::write(file, without_root(&profile::heap().to_flame_graph()))?;
    }
    Ok(())
}

/// Removes the folder of the sources, which is another one on each machine.
fn without_root(text: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    text.replace(&format!("{}/", root.display()), "")
}

/// Exports to the endpoint of the standard variables, and shows a snapshot every second.
async fn ship(options: &Options) -> Result<()> {
    let telemetry = otlp::install()?;
    let metrics = build(&telemetry);
    let page = serve(&metrics, options)?;
    load::start();
    let endpoint = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap_or_default();
    let mut screen = Screen::of_snapshots(shown_endpoint(&endpoint), page);
    let mut history = History::default();
    screen.begin()?;
    every_second(options.time, || {
        history.add_snapshot(&metrics.snapshot(), Instant::now());
        screen.show(&history)
    })
    .await?;
    telemetry.shutdown()?;
    writeln!(stdout(), "the last export was delivered")?;
    Ok(())
}

/// Exports every second to a receiver in this process, over gRPC, and shows what arrives.
async fn receive(options: &Options) -> Result<()> {
    let receiver = Receiver::start();
    let telemetry = otlp::builder()
        .endpoint(receiver.endpoint())
        .protocol(otlp::Protocol::Grpc)
        .interval(Duration::from_secs(1))
        // The receiver takes metrics alone, and the memory for a profile would show among the leaks.
        .profile_every(Duration::ZERO)
        .install()?;
    let page = serve(&build(&telemetry), options)?;
    load::start();
    let mut screen = Screen::of_exports(page);
    let mut history = History::default();
    let mut refresh = |history: &mut History| {
        receiver.take().iter().try_for_each(|export| {
            history.add_export(export);
            screen.show(history)
        })
    };
    let mut ticks = interval(Duration::from_millis(200));
    let mut ended = Box::pin(ended(options.time));
    loop {
        tokio::select! {
            result = &mut ended => break result?,
            _ = ticks.tick() => refresh(&mut history)?,
        }
    }
    telemetry.shutdown()?;
    refresh(&mut history)?;
    writeln!(stdout(), "{} exports were received, the last one at shutdown", history.samples())?;
    Ok(())
}

/// `init_runtime_metrics(&meter)`, with a heap profile and with the figures of glibc: the heap of the demo is small enough
/// to read them.
fn build(telemetry: &otlp::Telemetry) -> RuntimeMetrics {
    // The page names the place of a stall. To look it up for a warning that no one reads would take memory, which would show
    // as a spike among the leaks.
    let builder = RuntimeMetrics::builder().on_stall(|_| {});
    builder.glibc(true).heap_profile(HEAP_PROFILE).build(&telemetry.meter())
}

/// Serves the debug page, and returns its URL.
fn serve(metrics: &RuntimeMetrics, options: &Options) -> Result<String> {
    let server = match &options.page {
        Some(address) => debug::serve(address, metrics)?,
        None => debug::serve("127.0.0.1:6060", metrics).or_else(|_| debug::serve("127.0.0.1:0", metrics))?,
    };
    Ok(format!("http://{}/debug/runtime", server.local_addr()))
}

/// Returns the scheme, host and port of an endpoint: user names and paths can be secret.
fn shown_endpoint(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

async fn every_second(
    time: Option<Duration>,
    mut show: impl FnMut() -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended = Box::pin(ended(time));
    loop {
        tokio::select! {
            result = &mut ended => return result,
            _ = ticks.tick() => show()?,
        }
    }
}

/// Waits for Ctrl-C, a request to terminate, or the end of the time.
async fn ended(time: Option<Duration>) -> std::io::Result<()> {
    let timer = async {
        match time {
            Some(time) => sleep(time).await,
            None => pending().await,
        }
    };
    #[cfg(unix)]
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    #[cfg(unix)]
    let terminated = terminated.recv();
    #[cfg(not(unix))]
    let terminated = pending::<()>();
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminated => {}
        () = timer => {}
    }
    Ok(())
}

enum Command {
    Help,
    Run(Options),
}

#[derive(Default)]
struct Options {
    /// The time after which the demo ends.
    time: Option<Duration>,
    /// The address of the debug page.
    page: Option<String>,
    /// The file for a flame graph.
    flame: Option<String>,
}

fn command(arguments: impl Iterator<Item = String>) -> std::result::Result<Command, String> {
    let arguments: Vec<_> = arguments.collect();
    if arguments.iter().any(|argument| matches!(argument.as_str(), "-h" | "--help")) {
        return Ok(Command::Help);
    }
    let mut options = Options::default();
    let mut rest = arguments.into_iter();
    while let Some(name) = rest.next() {
        let mut value = |of: &str| rest.next().ok_or_else(|| format!("{name} needs {of}"));
        match name.as_str() {
            "--for" => {
                let time = value("a time")?;
                let parsed =
                    humantime::parse_duration(&time).map_err(|error| format!("--for {time}: {error}"))?;
                options.time = Some(parsed);
            }
            "--page" => options.page = Some(value("an address")?),
            "--flame" => options.flame = Some(value("a file")?),
            unknown => return Err(format!("unknown argument: {unknown}")),
        }
    }
    Ok(Command::Run(options))
}
