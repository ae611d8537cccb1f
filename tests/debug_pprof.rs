//! The answers of `/debug/pprof/`, over real connections.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::alloc::System;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use opentelemetry_instrumentation_runtime::profile::HeapProfile;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, Sampled, TaskExt, debug};
use support::http::{Answer, get, request};
use support::runtimes::while_blocked;

#[global_allocator]
static ALLOCATOR: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

struct Service {
    _heap: HeapProfile,
    server: debug::Server,
}

static SERVICE: LazyLock<Service> = LazyLock::new(|| {
    let heap = HeapProfile::start(65_536).unwrap();
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
    Service { _heap: heap, server: debug::builder(&metrics).serve("127.0.0.1:0").unwrap() }
});

fn address() -> SocketAddr {
    SERVICE.server.local_addr()
}

/// Sends a request. The look-up of names in an unoptimised executable takes long.
fn ask(path: &str) -> TcpStream {
    let stream = request(address(), &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    stream
}

/// Takes a profile. Tries again while other tests hold all permits.
fn text(path: &str) -> Answer {
    loop {
        let answer = Answer::read(ask(path));
        if answer.status != 429 {
            return answer;
        }
        std::thread::yield_now();
    }
}

fn pprof(path: &str) -> Vec<u8> {
    loop {
        let mut bytes = Vec::new();
        ask(path).read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        if head.starts_with("http/1.1 429") {
            continue;
        }
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        assert!(head.contains("content-type: application/octet-stream"), "{head}");
        let mut profile = Vec::new();
        GzDecoder::new(&bytes[end + 4..]).read_to_end(&mut profile).expect("gzip");
        return profile;
    }
}

fn contains(profile: &[u8], text: &str) -> bool {
    profile.windows(text.len()).any(|window| window == text.as_bytes())
}

#[inline(never)]
fn leaking_function() -> Vec<Vec<u8>> {
    black_box((0..1000).map(|_| vec![1; 1000]).collect())
}

#[test]
fn the_index_lists_every_profile() {
    for path in ["/debug/pprof/", "/debug/pprof"] {
        let answer = get(address(), path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
        for name in ["heap", "allocs", "stalls", "tasks", "threads", "profile"] {
            assert!(
                answer.body.contains(&format!(r#"href="/debug/pprof/{name}""#)),
                "{name}: {}",
                answer.body
            );
        }
    }
}

#[test]
fn the_heap_names_the_function_that_holds_memory() {
    let kept = leaking_function();
    assert!(contains(&pprof("/debug/pprof/heap"), "leaking_function"));
    assert!(contains(&pprof("/debug/pprof/allocs"), "leaking_function"));
    let answer = text("/debug/pprof/heap?debug=1");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert!(
        answer.body.contains("leaking_function") && answer.body.contains("inuse_space"),
        "{}",
        answer.body
    );
    drop(kept);
}

#[test]
fn tasks_are_listed_by_name_also_under_go_s_path() {
    let task = std::future::pending::<()>().with_task_name("waiting-task");
    for path in ["/debug/pprof/tasks?debug=1", "/debug/pprof/goroutine?debug=1"] {
        let answer = text(path);
        assert!(answer.status == 200 && answer.body.contains("waiting-task"), "{path}: {answer:?}");
    }
    drop(task);
}

#[test]
fn seconds_ask_for_the_change_in_that_time() {
    let start = Instant::now();
    let client = std::thread::spawn(|| text("/debug/pprof/heap?seconds=2&debug=1"));
    let mut kept = Vec::new();
    while !client.is_finished() {
        kept.push(black_box(vec![1_u8; 100_000]));
        std::thread::sleep(Duration::from_millis(20));
    }
    let answer = client.join().unwrap();
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("seconds_ask_for_the_change"), "{}", answer.body);
}

#[test]
fn seconds_beyond_their_range_are_refused() {
    for seconds in ["0", "301", "-1", "1.5", "ten", "", "99999999999999999999", "1e2"] {
        let answer = get(address(), &format!("/debug/pprof/heap?seconds={seconds}"));
        assert_eq!(answer.status, 400, "{seconds}: {answer:?}");
        assert!(answer.body.contains("from 1 to 300"), "{}", answer.body);
    }
}

#[test]
fn threads_are_listed_with_their_stacks() {
    let (sender, wait) = std::sync::mpsc::channel::<()>();
    let waiting = move || {
        let _ = wait.recv();
    };
    let thread = std::thread::Builder::new().name("waiting-thread".into()).spawn(waiting).unwrap();
    let mut answer = text("/debug/pprof/threads?debug=1");
    // The thread may not have its name yet.
    while !answer.body.contains("waiting-thread") {
        answer = text("/debug/pprof/threads?debug=1");
    }
    assert!(contains(&pprof("/debug/pprof/threads"), "waiting-thread"));
    drop(sender);
    thread.join().unwrap();
}

/// Uses the CPU until the flag is set.
#[inline(never)]
fn busy_function(stop: &AtomicBool) {
    let mut sum = 0_u64;
    while !stop.load(Relaxed) {
        (0..10_000_u64).for_each(|number| sum = black_box(sum.wrapping_mul(31).wrapping_add(number)));
    }
}

/// In one test, because there is one CPU profile at a time.
#[test]
fn a_cpu_profile_lasts_as_long_as_requested_excludes_others_and_ends_with_its_client() {
    let stop = Arc::new(AtomicBool::new(false));
    let busy = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || busy_function(&stop)
    });
    let start = Instant::now();
    assert!(contains(&pprof("/debug/pprof/profile?seconds=2"), "busy_function"));
    assert!(start.elapsed() >= Duration::from_secs(2));
    stop.store(true, Relaxed);
    busy.join().unwrap();

    // The first of these clients stays, so that others are refused, and then goes. No other test uses this server's permits.
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
    let server = debug::builder(&metrics).serve("127.0.0.1:0").unwrap();
    let deadline = Instant::now() + Duration::from_secs(100);
    let first = loop {
        let mut first = TcpStream::connect(server.local_addr()).unwrap();
        first.write_all(b"GET /debug/pprof/profile?seconds=300 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        // The second request may have arrived first; then the one above was refused.
        if text("/debug/pprof/profile?seconds=1").status == 409 {
            break first;
        }
        assert!(Instant::now() < deadline, "a second profile is refused");
    };
    drop(first);
    while text("/debug/pprof/profile?seconds=1").status != 200 {
        assert!(Instant::now() < deadline, "the profile ends with its client");
    }
    server.stop();
}

#[test]
fn symbols_are_found_by_address() {
    assert_eq!(get(address(), "/debug/pprof/symbol").body, "num_symbols: 1\n");
    let function = leaking_function as fn() -> Vec<Vec<u8>> as usize + 1;
    let answer = text(&format!("/debug/pprof/symbol?{function:#x}+0x10+nonsense"));
    let name = answer.body.strip_prefix(&format!("num_symbols: 1\n{function:#x} ")).unwrap_or_default();
    assert!(name.trim_end().ends_with("leaking_function"), "{answer:?}");
    // Go's tool posts the addresses.
    let post = |body: &str| {
        let head =
            "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream";
        let stream = request(address(), &format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        Answer::read(stream)
    };
    let mut posted = post(&format!("{function:#x}+0x10"));
    while posted.status == 429 {
        posted = post(&format!("{function:#x}+0x10"));
    }
    assert_eq!((posted.status, posted.body), (200, answer.body));
    assert_eq!(post("").status, 200);
    assert_eq!(post(&"0x1+".repeat(100_000)).status, 413);
}

#[test]
fn the_command_line_is_hidden_by_default() {
    let answer = get(address(), "/debug/pprof/cmdline");
    assert_eq!(answer.status, 403, "{answer:?}");
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
    let server = debug::builder(&metrics).command_line(true).serve("127.0.0.1:0").unwrap();
    let answer = get(server.local_addr(), "/debug/pprof/cmdline");
    assert_eq!(answer.body, std::env::args().collect::<Vec<_>>().join("\0"));
    server.stop();
}

#[test]
fn profiles_are_guarded_like_everything_else() {
    for (method, host, status) in
        [("GET", "evil.example", 403), ("POST", "evil.example", 403), ("POST", "localhost", 405)]
    {
        for path in ["", "heap", "threads?seconds=300", "symbol?0x1", "cmdline"] {
            if (path, status) == ("symbol?0x1", 405) {
                continue; // Go's tool posts to it.
            }
            let text = format!("{method} /debug/pprof/{path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let answer = Answer::read(request(address(), &text));
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
        }
    }
}

/// Long requests take all permits, others are refused at once, and clients that disconnect release them.
#[test]
fn requests_beyond_the_limit_are_refused_until_clients_disconnect() {
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
    let server = debug::builder(&metrics).serve("127.0.0.1:0").unwrap();
    let address = server.local_addr();
    let long = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /debug/pprof/threads?seconds=300 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        stream
    };
    let clients: Vec<_> = (0..4).map(|_| long()).collect();
    let status = || get(address, "/debug/pprof/threads").status;
    let deadline = Instant::now() + Duration::from_secs(300);
    while status() != 429 {
        assert!(Instant::now() < deadline, "four long requests take all permits");
    }
    assert_eq!(get(address, "/debug/vars").status, 200, "other endpoints answer");
    drop(clients);
    while status() != 200 {
        assert!(Instant::now() < deadline, "the permits come back");
    }
    server.stop();
}

#[test]
fn profiles_are_answered_while_the_runtime_is_blocked() {
    while_blocked(|| {
        let answer = text("/debug/pprof/threads?debug=1");
        assert!(
            answer.body.contains("profiles_are_answered_while_the_runtime_is_blocked"),
            "{}",
            answer.body
        );
    });
}
