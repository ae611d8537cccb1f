//! Reads the metrics in all ways: snapshots, JSON, OpenTelemetry's readers, the monitor, and the debug server with clients that
//! behave, are slow, or break off.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::{Monitor, RuntimeMetrics, debug};
use opentelemetry_sdk::metrics::Temporality;
use support::random::Random;
use support::reader::{Reader, provider};

use crate::laws::Laws;
use crate::soak::{Soak, more};

/// Takes snapshots, checks them, and writes them as JSON.
pub fn run_snapshots(soak: &Soak) {
    let mut laws = Laws::default();
    while soak.goes_on() {
        let snapshot = laws.check(soak);
        let json = serde_json::to_string(&snapshot);
        soak.check(json.is_ok_and(|json| json.contains("rust.memory.used")), || "no JSON".into());
        more(&soak.done.snapshots);
        soak.pause(Duration::from_millis(100));
    }
}

/// Reads through providers that come and go, and through monitors.
pub fn run_providers(soak: &Soak) {
    for turn in 0_u32.. {
        if !soak.goes_on() {
            return;
        }
        let readers = [Reader::new(Temporality::Cumulative), Reader::new(Temporality::Delta)];
        let provider = provider(&[&readers[0], &readers[1]]);
        let builder =
            RuntimeMetrics::builder().disk_io(true).glibc(turn.is_multiple_of(4)).size_classes(true);
        let metrics = builder.runtime("main", &soak.main).build(&provider.meter("soak"));
        let every = Duration::from_millis(100);
        let writer = || Writer { lines: 5 + turn % 20 };
        let _monitors = [
            Monitor::start(&metrics, every, writer()),
            Monitor::memstats(&metrics, every, writer()),
            Monitor::with_stacks(&metrics, every * 3, 4, writer()),
        ];
        for _ in 0..15 {
            soak.pause(Duration::from_millis(100));
            for reader in &readers {
                let exported = reader.export();
                soak.check(exported.contains_key("rust.memory.used"), || {
                    "rust.memory.used is not exported".into()
                });
            }
        }
        if turn.is_multiple_of(2) {
            metrics.stop();
        }
        more(&soak.done.exporters);
    }
}

/// Takes some lines, the last one slowly, and then fails.
struct Writer {
    lines: u32,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines = self.lines.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        if self.lines == 0 {
            thread::sleep(Duration::from_millis(300));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const PATHS: [&str; 13] = [
    "/debug/vars",
    "/debug/metrics.json",
    "/debug/runtime",
    "/debug/runtime/page.js",
    "/debug/pprof/",
    "/debug/pprof/heap",
    "/debug/pprof/heap?debug=1",
    "/debug/pprof/allocs",
    "/debug/pprof/stalls",
    "/debug/pprof/tasks",
    "/debug/pprof/threads",
    "/debug/pprof/profile?seconds=1",
    "/debug/runtime/flame/heap",
];

/// Starts and stops the debug server, with clients of all kinds.
pub fn run_debug(soak: &Soak) {
    let mut random = Random(0xBF58_476D_1CE4_E5B9);
    while soak.goes_on() {
        let server = match debug::builder(&soak.metrics).command_line(true).serve("127.0.0.1:0") {
            Ok(server) => server,
            Err(error) => return soak.fail(format!("no debug server: {error}")),
        };
        let address = server.local_addr();
        thread::scope(|scope| {
            scope.spawn(|| slow_clients(soak, address));
            for _ in 0..12 {
                if !soak.goes_on() {
                    break;
                }
                let path = PATHS[random.below(PATHS.len() as u64) as usize];
                match get(address, path) {
                    Ok(status) if expected(path).contains(&status) => more(&soak.done.requests),
                    answer => soak.fail(format!("{path}: {answer:?}")),
                }
                broken_client(address, &mut random);
                soak.pause(Duration::from_millis(250));
            }
        });
        server.stop();
    }
}

/// Returns the statuses that an answer may have while everything else is going on.
fn expected(path: &str) -> &'static [u16] {
    // 503: the machine is too busy for an answer in time.
    match path {
        // 409: an exporter takes a profile of the CPU, too.
        "/debug/pprof/profile?seconds=1" => &[200, 409, 429, 503],
        // 429: profiles are still being taken for clients that broke off.
        _ if path.contains("/pprof/") || path.contains("/flame/") => &[200, 429, 503],
        _ => &[200, 503],
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(150)))?;
    Ok(stream)
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Returns the status of the answer.
fn get(address: SocketAddr, path: &str) -> io::Result<u16> {
    let mut stream = connect(address)?;
    stream.write_all(request(path).as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let status = answer.get(9..12).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Sends half a request, nonsense or nothing, or does not wait for the answer. The errors are the client's own doing.
fn broken_client(address: SocketAddr, random: &mut Random) {
    let Ok(mut stream) = connect(address) else { return };
    let text = match random.below(5) {
        0 => String::new(),
        1 => "GET /debug/va".to_owned(),
        2 => request("/debug/pprof/heap"),
        3 => format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(40_000)),
        _ => "\u{1}\u{2}\u{3} nonsense\r\n\r\n".to_owned(),
    };
    drop(stream.write_all(text.as_bytes()));
}

/// A client that sends a byte now and then, and two that do not read the events that they asked for.
fn slow_clients(soak: &Soak, address: SocketAddr) {
    let (Ok(mut slow), Ok(mut deaf), Ok(mut blind)) = (connect(address), connect(address), connect(address))
    else {
        return;
    };
    drop(deaf.write_all(request("/debug/events").as_bytes()));
    drop(blind.write_all(request("/debug/runtime/plots").as_bytes()));
    for byte in request("/debug/runtime").bytes().take(20) {
        if slow.write_all(&[byte]).is_err() || !soak.goes_on() {
            return;
        }
        soak.pause(Duration::from_millis(100));
    }
}
