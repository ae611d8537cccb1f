//! The debug server against hostile clients.

#![cfg(target_os = "linux")]

use support::http;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Answer, get};
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, debug};
use proptest::prelude::*;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::system();

struct Service {
    metrics: RuntimeMetrics,
    server: debug::Server,
}

/// One test at a time, since memory is counted for the whole process.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn service() -> Service {
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
    let server = debug::serve("127.0.0.1:0", &metrics).unwrap();
    Service { metrics, server }
}

fn used(metrics: &RuntimeMetrics) -> u64 {
    metrics.snapshot().get("rust.memory.used").unwrap().value().unwrap().as_u64().unwrap()
}

/// Returns the server's answer to these bytes, and checks that it closes the connection in time.
fn send(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    if !bytes.ends_with(b"\r\n\r\n") {
        // The server need not wait for the rest.
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

static SHARED: LazyLock<Service> = LazyLock::new(service);

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_refused_or_answered(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _turn = turn();
        let answer = send(SHARED.server.local_addr(), &bytes);
        prop_assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "{answer}");
        prop_assert!(!answer.contains("memstats"));
    }

    #[test]
    fn any_request_gets_one_of_the_known_answers(
        method in "(GET|POST|HEAD|[A-Z]{1,12})",
        path in r"/(debug/(vars|runtime|metrics\.json|runtime/page\.js|[ -~&&[^ #]]{0,40})|[ -~&&[^ #]]{0,60})",
        profile in r"(|/debug/pprof/?(|heap|allocs|threads|symbol|cmdline|[a-z]{1,10})(|\?debug=[0-9]{1,20}|\?seconds=(|0|[3-9][0-9]{2,30}|-?[a-z1.]{1,3}e?)|\?[ -~&&[^ #]]{0,100})|/debug/runtime/flame/?(|heap|tasks|threads|[a-z]{1,10})(|\?since=[0-9a-z-]{0,30}|\?mark(=[a-z]{1,3})?|\?seconds=(|0|[3-9][0-9]{2,30})|\?[ -~&&[^ #]]{0,100}))",
        host in r"(localhost|127\.0\.0\.1:[0-9]{1,5}|[a-z.]{1,20}|[ -~]{0,40})",
        extra in prop::collection::vec(("[A-Za-z-]{1,20}", "[ -~]{0,100}"), 0..8),
    ) {
        // Half of the requests are for profiles.
        let path = if profile.is_empty() { path } else { profile };
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in &extra {
            text += &format!("X{name}: {value}\r\n");
        }
        let _turn = turn();
        let answer = send(SHARED.server.local_addr(), format!("{text}\r\n").as_bytes());
        let answer = Answer::parse(&answer);
        let status = answer.as_ref().map(|answer| answer.status);
        prop_assert!(matches!(status, Some(200 | 303 | 400 | 403 | 404 | 405 | 414 | 429 | 503)), "{answer:?}");
        if !host.contains("localhost") && !host.contains("127.0.0.1") {
            prop_assert!(!matches!(status, Some(200 | 303)), "{}", host);
        }
    }
}

#[test]
fn giant_headers_are_cut_off() {
    let _turn = turn();
    let service = service();
    let address = service.server.local_addr();
    let before = used(&service.metrics);
    let long = "x".repeat(4 << 20);
    let many = "A: b\r\n".repeat(100_000);
    for text in [
        format!("GET /debug/vars HTTP/1.1\r\nHost: localhost\r\nCookie: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /debug/vars HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
        long.clone(),
    ] {
        let answer = send(address, text.as_bytes());
        let status = Answer::parse(&answer).map(|answer| answer.status);
        assert!(matches!(status, None | Some(400 | 414 | 431)), "{answer}");
    }
    drop((long, many));
    assert!(used(&service.metrics) < before + (1 << 20), "the server keeps no request");
    assert_eq!(get(address, "/debug/vars").status, 200);
}

#[test]
fn slow_clients_are_disconnected_and_others_are_answered() {
    let _turn = turn();
    let service = service();
    let address = service.server.local_addr();
    // More connections than are served at once, each with a request that never ends.
    let slow: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /debug/vars HTTP/1.1\r\nHost: loc").unwrap();
            stream
        })
        .collect();
    let start = Instant::now();
    assert_eq!(get(address, "/debug/vars").status, 200);
    println!("answered beside 100 slow clients after {:?}", start.elapsed());
    for mut stream in slow {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut rest = Vec::new();
        // The server closes it, with or without an answer.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
}

#[test]
fn thousands_of_connections_cost_bounded_memory() {
    let _turn = turn();
    const CONNECTIONS: usize = 2000;
    let service = service();
    let address = service.server.local_addr();
    let before = used(&service.metrics);
    let mut most = before;
    let mut open = Vec::new();
    for number in 0..CONNECTIONS {
        // The kernel may refuse the connection while its queue is full, which also bounds the memory.
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(10)) {
            let _ = stream.write_all(b"GET /debug/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
            open.push(stream);
        }
        if number % 200 == 0 {
            most = most.max(used(&service.metrics));
        }
    }
    most = most.max(used(&service.metrics));
    println!("{} connections: at most {} bytes more", open.len(), most - before);
    assert!(open.len() > 64, "more than are served at once");
    assert!(most - before < 8 << 20);
    drop(open);
    assert_eq!(get(address, "/debug/vars").status, 200, "the server answers again");
}
