//! Receivers that fail in every way, scripted ones and the real Collector. The table shows what is tried, delivered and
//! lost, and how soon exports recover. The service never waits, no memory grows, and the log has a line at each end of an
//! outage.

use support::collector;
use support::log;
use support::pace::repeat_when_late;
use support::proxy;
use support::receiver;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use collector::{Collector, Config, Ports};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp::{self, Protocol, Telemetry};
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, init_runtime_metrics};
use proxy::Proxy;
use receiver::{Answer, Receiver};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];
const INTERVAL: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_millis(300);
/// How long each fault lasts.
const FAULT: Duration = Duration::from_millis(1200);
const LONG: Duration = Duration::from_secs(10);

/// A service that counts all the time, while its metrics go somewhere.
struct Service {
    telemetry: Telemetry,
    metrics: RuntimeMetrics,
    counted: Arc<AtomicU64>,
    /// The longest time of one count, in microseconds.
    slowest: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Service {
    fn start(endpoint: &str, protocol: Protocol) -> Self {
        let builder = otlp::builder().endpoint(endpoint).protocol(protocol).interval(INTERVAL);
        let telemetry = builder.timeout(TIMEOUT).build().unwrap();
        let metrics = init_runtime_metrics(&telemetry.meter());
        let orders = telemetry.provider().meter("app").u64_counter("orders").build();
        let (counted, slowest, stop) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let thread = {
            let (counted, slowest, stop) = (Arc::clone(&counted), Arc::clone(&slowest), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let start = Instant::now();
                    orders.add(1, &[]);
                    let time = start.elapsed().as_micros();
                    slowest.fetch_max(u64::try_from(time).unwrap(), Ordering::SeqCst);
                    counted.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(1));
                }
            })
        };
        Service { telemetry, metrics, counted, slowest, stop, thread: Some(thread) }
    }

    /// Returns the bytes currently allocated.
    fn used(&self) -> f64 {
        let snapshot = self.metrics.snapshot();
        let reading = snapshot.get("rust.memory.used").expect("the counting allocator is the global one");
        reading.points()[0].value().as_f64().unwrap()
    }

    /// Lets half of the fault pass and returns the least memory in use at its end, since the memory of an export in
    /// progress, here and in the receiver of this process, is no growth.
    fn half(&self) -> f64 {
        const LOOKS: u32 = 24;
        let window = INTERVAL * 3;
        thread::sleep(FAULT / 2 - window);
        let look = |_| {
            thread::sleep(window / LOOKS);
            self.used()
        };
        (0..LOOKS).map(look).fold(f64::INFINITY, f64::min)
    }

    /// Lets the fault last and returns by how many bytes memory grew in its second half.
    fn suffer(&self) -> f64 {
        let before = self.half();
        self.half() - before
    }

    /// Stops counting and delivers the last export. Returns the count, the result, and the slowest count.
    fn end(mut self) -> (f64, Result<(), otlp::Error>, u64) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        let last = self.telemetry.shutdown();
        (self.counted.load(Ordering::SeqCst) as f64, last, self.slowest.load(Ordering::SeqCst))
    }
}

/// Ends an attempt that failed.
impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A row of the table.
struct Outcome {
    fault: &'static str,
    protocol: Protocol,
    /// `None` if the receiver does not count them.
    requests: Option<usize>,
    delivered: usize,
    /// Includes those that were left out because the receiver had asked to wait.
    lost: usize,
    /// From the end of the fault to the first export.
    recovered: Option<Duration>,
    grown: f64,
    slowest: u64,
    lines: Vec<String>,
}

impl Outcome {
    fn print_head() {
        eprintln!(
            "\n{:<34} {:<13} {:>5} {:>8} {:>9} {:>4} {:>9} {:>9} {:>9} {:>5}",
            "fault",
            "protocol",
            "due",
            "requests",
            "delivered",
            "lost",
            "recovered",
            "grown",
            "slowest",
            "lines"
        );
    }

    fn print(&self) {
        eprintln!(
            "{:<34} {:<13} {:>5} {:>8} {:>9} {:>4} {:>9} {:>7.0} B {:>6} us {:>5}",
            self.fault,
            format!("{:?}", self.protocol),
            self.delivered + self.lost,
            self.requests.map_or("-".into(), |requests| requests.to_string()),
            self.delivered,
            self.lost,
            self.recovered.map_or("-".into(), |time| format!("{} ms", time.as_millis())),
            self.grown,
            self.slowest,
            self.lines.len(),
        );
        if std::env::var_os("SHOW_LINES").is_some() {
            self.lines.iter().for_each(|line| eprintln!("    {line}"));
        }
    }

    /// Checks what must hold in every fault.
    fn assert_harmless(&self) {
        let fault = self.fault;
        // The receiver keeps every export.
        let kept = self.delivered as f64 * 15_000.0;
        assert!(self.grown < 100_000.0 + kept, "{fault}: {} bytes more", self.grown);
        assert!(self.slowest < 250_000, "{fault}: counting took {} us", self.slowest);
    }

    /// One warning at the start, one line at the end.
    fn assert_two_lines(&self, start: &str, end: &str) {
        let (fault, lines) = (self.fault, &self.lines);
        assert_eq!(lines.len(), 2, "{fault}: {lines:#?}");
        assert!(lines[0].starts_with("WARN ") && lines[0].contains(start), "{fault}: {lines:#?}");
        assert!(lines[1].starts_with("INFO ") && lines[1].contains(end), "{fault}: {lines:#?}");
    }
}

const LOST: &str = "metrics are not delivered";
const AGAIN: &str = "metrics are delivered again";

/// The number of lost exports in the line at the end of an outage.
fn lost(lines: &[String]) -> usize {
    let number = lines
        .iter()
        .find_map(|line| line.split(" exports were lost").next()?.rsplit(' ').next()?.parse().ok());
    number.unwrap_or(0)
}

/// A receiver that answers like this for a while.
fn scripted(fault: &'static str, protocol: Protocol, answer: Answer) -> Outcome {
    let receiver = Receiver::start();
    let service = Service::start(&receiver.endpoint(), protocol);
    assert!(receiver.wait_for(2, LONG));
    let before = receiver.exports().len();
    receiver.always(answer);
    let grown = service.suffer();
    let during = receiver.exports().len() - before;
    let healed = Instant::now();
    receiver.always(Answer::Take);
    let recovered = receiver.wait_for(before + during + 1, LONG).then(|| healed.elapsed());
    finish(fault, protocol, service, grown, recovered, |counted| {
        assert_eq!(receiver.last().unwrap().value("orders"), Some(counted), "{fault}");
        (Some(receiver.requests()), receiver.exports().len())
    })
}

/// Ends the service. `delivered` gets the count, checks that it has arrived, and returns the number of exports.
fn finish(
    fault: &'static str,
    protocol: Protocol,
    service: Service,
    grown: f64,
    recovered: Option<Duration>,
    delivered: impl FnOnce(f64) -> (Option<usize>, usize),
) -> Outcome {
    let (counted, last, slowest) = service.end();
    assert_eq!(last, Ok(()), "{fault}");
    let (requests, delivered) = delivered(counted);
    let lines = log::take();
    let outcome = Outcome {
        fault,
        protocol,
        requests,
        delivered,
        lost: lost(&lines),
        recovered,
        grown,
        slowest,
        lines,
    };
    outcome.print();
    outcome.assert_harmless();
    outcome
}

/// Makes a row, once more if it failed while the machine did not keep up: each has short timeouts.
fn row(attempt: impl Fn()) {
    repeat_when_late(|| {
        // Of the attempt before.
        log::take();
        attempt();
    });
}

#[test]
fn every_fault_is_survived() {
    log::listen();
    Outcome::print_head();
    for protocol in BOTH {
        let refuse = |http, grpc, after| Answer::Refuse { http, grpc, after, message: "on purpose" };
        let second = Some(Duration::from_secs(1));
        for (fault, answer) in [
            ("hanging", Answer::Hang),
            ("429 / UNAVAILABLE", refuse(429, tonic::Code::Unavailable, None)),
            ("503 / UNAVAILABLE, wait 1 s", refuse(503, tonic::Code::Unavailable, second)),
            ("429 / RESOURCE_EXHAUSTED, wait 1 s", refuse(429, tonic::Code::ResourceExhausted, second)),
            ("400 / INVALID_ARGUMENT", refuse(400, tonic::Code::InvalidArgument, None)),
            ("413 / RESOURCE_EXHAUSTED", refuse(413, tonic::Code::ResourceExhausted, None)),
            ("401 / UNAUTHENTICATED", refuse(401, tonic::Code::Unauthenticated, None)),
        ] {
            row(|| {
                let outcome = scripted(fault, protocol, answer.clone());
                outcome.assert_two_lines(LOST, AGAIN);
                assert!(outcome.lost > 0, "{fault}");
                assert!(outcome.recovered.is_some_and(|time| time < Duration::from_secs(3)), "{fault}");
                let is_said = matches!(answer, Answer::Hang) || outcome.lines[0].contains("on purpose");
                assert!(is_said, "{:?}", outcome.lines);
            });
        }
        row(|| {
            let slow = scripted("slow, 200 ms", protocol, Answer::TakeAfter(Duration::from_millis(200)));
            assert_eq!((slow.lost, slow.lines.len()), (0, 0), "{:?}", slow.lines);
        });
        row(|| {
            let answer = Answer::Reject { points: 3, message: "too old" };
            let partly = scripted("partial success", protocol, answer);
            partly.assert_two_lines("some metrics are rejected", "accepted completely again");
            assert!(partly.lines[0].contains("rejects 3 points: too old"), "{:?}", partly.lines);
            assert_eq!(partly.lost, 0);
        });
        row(|| half_open(protocol).assert_two_lines(LOST, AGAIN));
        row(|| down_at_first(protocol).assert_two_lines(LOST, AGAIN));
        row(|| restarted(protocol).assert_two_lines(LOST, AGAIN));
        for (fault, send) in
            [("garbage instead of a server", Some(&b"\x00garbage\r\n\r\n"[..])), ("endless garbage", None)]
        {
            row(|| no_server(fault, protocol, send).assert_two_lines(LOST, AGAIN));
        }
        row(|| collector_restarted(protocol));
        row(|| collector_overloaded(protocol));
    }
    let html = Answer::Say { kind: "text/html", body: b"<h1>Welcome</h1>".to_vec() };
    let broken = Answer::Say { kind: "application/x-protobuf", body: vec![0xff; 9] };
    for (fault, answer) in
        [("200 with a page", html), ("200 with garbage", broken), ("200 without end", Answer::Endless)]
    {
        row(|| scripted(fault, Protocol::HttpProtobuf, answer.clone()).assert_two_lines(LOST, AGAIN));
    }
}

fn half_open(protocol: Protocol) -> Outcome {
    let receiver = Receiver::start();
    let proxy = Proxy::start(receiver.address());
    let service = Service::start(&format!("http://{}", proxy.address()), protocol);
    assert!(receiver.wait_for(2, LONG));
    let before = receiver.exports().len();
    let broken = Instant::now();
    proxy.leave_half_open();
    // The silent connection stays silent; a new one works.
    let recovered = receiver.wait_for(before + 2, LONG).then(|| broken.elapsed());
    let grown = service.suffer();
    finish("half-open connection", protocol, service, grown, recovered, |counted| {
        assert_eq!(receiver.last().unwrap().value("orders"), Some(counted));
        (Some(receiver.requests()), receiver.exports().len())
    })
}

fn down_at_first(protocol: Protocol) -> Outcome {
    let address = SocketAddr::from(([127, 0, 0, 1], Ports::free().grpc));
    let service = Service::start(&format!("http://{address}"), protocol);
    let grown = service.suffer();
    let healed = Instant::now();
    let receiver = Receiver::start_at(address);
    let recovered = receiver.wait_for(1, LONG).then(|| healed.elapsed());
    finish("down at start", protocol, service, grown, recovered, |counted| {
        assert_eq!(receiver.last().unwrap().value("orders"), Some(counted));
        (Some(receiver.requests()), receiver.exports().len())
    })
}

fn restarted(protocol: Protocol) -> Outcome {
    let receiver = Receiver::start();
    let address = receiver.address();
    let service = Service::start(&receiver.endpoint(), protocol);
    assert!(receiver.wait_for(2, LONG));
    let before = receiver.exports().len();
    drop(receiver);
    let grown = service.suffer();
    let healed = Instant::now();
    let receiver = Receiver::start_at(address);
    let recovered = receiver.wait_for(1, LONG).then(|| healed.elapsed());
    finish("down in mid-run", protocol, service, grown, recovered, |counted| {
        assert_eq!(receiver.last().unwrap().value("orders"), Some(counted));
        (None, before + receiver.exports().len())
    })
}

/// Listens without being a server: sends these bytes, or bytes without end.
fn no_server(fault: &'static str, protocol: Protocol, send: Option<&'static [u8]>) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let babble = thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            if stopped.load(Ordering::SeqCst) {
                break;
            }
            let _ = connection.set_read_timeout(Some(Duration::from_millis(20)));
            let _ = connection.read(&mut [0; 1024]);
            match send {
                Some(bytes) => drop(connection.write_all(bytes)),
                None => {
                    while !stopped.load(Ordering::SeqCst) && connection.write_all(&[b'x'; 4096]).is_ok() {}
                }
            }
        }
    });
    let service = Service::start(&format!("http://{address}"), protocol);
    let grown = service.suffer();
    stop.store(true, Ordering::SeqCst);
    drop(std::net::TcpStream::connect(address));
    babble.join().unwrap();
    let healed = Instant::now();
    let receiver = Receiver::start_at(address);
    let recovered = receiver.wait_for(1, LONG).then(|| healed.elapsed());
    finish(fault, protocol, service, grown, recovered, |counted| {
        assert_eq!(receiver.last().unwrap().value("orders"), Some(counted));
        (Some(receiver.requests()), receiver.exports().len())
    })
}

fn port(ports: Ports, protocol: Protocol) -> u16 {
    if protocol == Protocol::Grpc { ports.grpc } else { ports.http }
}

fn orders(text: &str) -> usize {
    text.matches("     -> Name: orders\n").count()
}

fn collector_restarted(protocol: Protocol) {
    let Some(collector) = Collector::start(&Config::default()) else { return };
    let ports = collector.ports();
    let service = Service::start(&format!("http://127.0.0.1:{}", port(ports, protocol)), protocol);
    assert!(collector.wait_for(|text| orders(text) >= 2, LONG));
    let before = orders(&collector.printed());
    drop(collector);
    let grown = service.suffer();
    let collector = Collector::start_at(ports, &Config::default()).expect("its ports are still free");
    let healed = Instant::now();
    let recovered = collector.wait_for(|text| orders(text) >= 1, LONG).then(|| healed.elapsed());
    let outcome = finish("Collector killed and restarted", protocol, service, grown, recovered, |counted| {
        assert_arrived(&collector, counted);
        (None, before + collector.values("orders").len())
    });
    outcome.assert_two_lines(LOST, AGAIN);
}

fn collector_overloaded(protocol: Protocol) {
    let limited = "{check_interval: 50ms, limit_mib: 2, spike_limit_mib: 1}";
    let config = Config { processor: Some(("memory_limiter", limited)), ..Config::default() };
    let Some(collector) = Collector::start(&config) else { return };
    let ports = collector.ports();
    // The Collector accepts everything until it has checked its memory for the first time.
    thread::sleep(Duration::from_millis(200));
    let service = Service::start(&format!("http://127.0.0.1:{}", port(ports, protocol)), protocol);
    let grown = service.suffer();
    drop(collector);
    let collector = Collector::start_at(ports, &Config::default()).expect("its ports are still free");
    let healed = Instant::now();
    let recovered = collector.wait_for(|text| orders(text) >= 1, LONG).then(|| healed.elapsed());
    let outcome = finish("Collector out of memory", protocol, service, grown, recovered, |counted| {
        assert_arrived(&collector, counted);
        (None, collector.values("orders").len())
    });
    outcome.assert_two_lines(LOST, AGAIN);
    assert!(outcome.lines[0].contains("memory"), "the Collector's own words are in it: {:?}", outcome.lines);
}

/// The Collector prints a little after it has answered.
fn assert_arrived(collector: &Collector, counted: f64) {
    let start = Instant::now();
    while collector.values("orders").last() != Some(&counted) {
        assert!(start.elapsed() < LONG, "{counted} is not the last of {:?}", collector.values("orders"));
        thread::yield_now();
    }
}
