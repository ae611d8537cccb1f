//! The pages with flame graphs, over real connections.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::alloc::System;
use std::hint::black_box;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::profile::HeapProfile;
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, Sampled, TaskExt, debug};
use support::child::{child, results};
use support::http::{Answer, request};
use support::runtimes::while_blocked;

#[global_allocator]
static ALLOCATOR: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

/// Far longer than the look-up of names in an unoptimised executable takes.
const LONG: Duration = Duration::from_secs(300);

fn server() -> debug::Server {
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
    debug::serve("127.0.0.1:0", &metrics).unwrap()
}

static SERVER: LazyLock<debug::Server> = LazyLock::new(|| {
    HeapProfile::start(65_536).unwrap();
    server()
});

fn address() -> SocketAddr {
    SERVER.local_addr()
}

fn answer(address: SocketAddr, path: &str, headers: &str) -> Answer {
    let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let stream = request(address, &text);
    stream.set_read_timeout(Some(LONG)).unwrap();
    Answer::read(stream)
}

fn ask(address: SocketAddr, path: &str, headers: &str) -> Answer {
    loop {
        let answer = answer(address, &format!("/debug/runtime/{path}"), headers);
        // Other tests may hold all permits.
        if answer.status != 429 {
            return answer;
        }
        std::thread::yield_now();
    }
}

fn page(path: &str) -> String {
    let answer = ask(address(), &format!("flame/{path}"), "");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/html; charset=utf-8")),
        "{path}"
    );
    answer.body
}

#[inline(never)]
fn leaking_function(blocks: usize) -> Vec<Vec<u8>> {
    black_box((0..blocks).map(|_| vec![1; 10_000]).collect())
}

#[test]
fn the_heap_shows_the_function_that_holds_memory_with_file_and_line() {
    let kept = leaking_function(100);
    let html = page("heap");
    assert!(html.contains("<svg xmlns") && html.contains("class=\"frame\""), "{html}");
    assert!(html.contains("debug_flame::leaking_function\n"), "{html}");
    let line =
        include_str!("debug_flame.rs").lines().position(|line| line.contains("vec![1; 10_000]")).unwrap() + 1;
    assert!(html.contains(&format!("tests/debug_flame.rs:{line}")), "{html}");
    assert!(page("allocs").contains("debug_flame::leaking_function"));
    drop(kept);
}

#[test]
fn growth_since_a_chosen_moment_leaves_out_what_was_there_before() {
    #[inline(never)]
    fn before() -> Vec<u8> {
        black_box(vec![1; 3_000_000])
    }
    #[inline(never)]
    fn afterwards() -> Vec<u8> {
        black_box(vec![1; 3_000_000])
    }
    let old = before();
    let answer = ask(address(), "flame/heap?mark", "Sec-Fetch-Site: same-origin\r\n");
    assert_eq!(answer.status, 303, "{answer:?}");
    let location = answer.header("location").unwrap().to_owned();
    let new = afterwards();
    let html = page(location.strip_prefix("/debug/runtime/flame/").unwrap());
    assert!(html.contains("::afterwards") && !html.contains("::before"), "{html}");
    assert!(html.contains("growth since the chosen moment"), "{html}");
    let whole = page("heap");
    assert!(whole.contains("::afterwards") && whole.contains("::before"), "{whole}");
    assert!(whole.contains("Growth since "), "the moment is offered: {whole}");
    drop((old, new));
}

#[test]
fn only_this_server_s_pages_choose_moments_and_unknown_ones_are_not_found() {
    for site in ["cross-site", "same-site"] {
        let answer = ask(address(), "flame/heap?mark", &format!("Sec-Fetch-Site: {site}\r\n"));
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    assert_eq!(ask(address(), "flame/heap?since=1000000", "").status, 404);
    assert_eq!(ask(address(), "flame/tasks?since=1000000", "").status, 404);
}

#[test]
fn every_profile_has_a_page_that_the_content_policy_allows() {
    let _task = std::future::pending::<()>().with_task_name("<waiting>");
    for name in
        ["heap", "allocs", "stalls", "tasks", "threads", "profile", "profile?seconds=1", "threads?seconds=1"]
    {
        let answer = ask(address(), &format!("flame/{name}"), "");
        let body = &answer.body;
        assert_eq!(answer.status, 200, "{name}: {body}");
        assert!(answer.header("content-security-policy").unwrap().contains("script-src 'self'"));
        for refused in ["<style", " style=", "<script>", "onclick", "javascript:", "<waiting>"] {
            assert!(!body.contains(refused), "{name} has {refused}");
        }
    }
    assert!(page("tasks").contains("&lt;waiting&gt;"));
    let script = ask(address(), "flame.js", "");
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
}

#[test]
fn hostile_requests_are_refused() {
    let long = "9".repeat(5000);
    for (query, status) in [
        ("seconds=0", 400),
        ("seconds=301", 400),
        ("seconds=-1", 400),
        ("seconds=", 400),
        (&*format!("seconds={long}"), 400),
        ("since=", 400),
        ("since=-1", 400),
        (&*format!("since={long}"), 400),
        ("since=%31", 400),
        ("since=1&seconds=1&since=x", 404),
    ] {
        let answer = ask(address(), &format!("flame/heap?{query}"), "");
        // A moment with this number may exist.
        let is_expected = answer.status == status || status == 404 && answer.status == 200;
        assert!(is_expected, "{query}: {}", answer.status);
        assert!(answer.header("content-security-policy").is_some());
    }
    for (method, path, host, status) in [
        ("GET", "flame/heap", "evil.example", 403),
        ("GET", "flame/heap?mark", "evil.example", 403),
        ("GET", "flame.js", "evil.example", 403),
        ("POST", "flame/heap?mark", "localhost", 405),
        ("HEAD", "flame/heap?mark", "localhost", 405),
        ("GET", "flame/other", "localhost", 404),
        ("GET", "flame/", "localhost", 404),
        ("GET", "flame/heap/", "localhost", 404),
        ("GET", "flame/../../secret", "localhost", 404),
        ("GET", "flame/%68eap", "localhost", 404),
    ] {
        let text = format!("{method} /debug/runtime/{path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = Answer::read(request(address(), &text));
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

/// The names of this process's threads.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect()
}

/// A page for a long time takes a permit until its client disconnects, and the time limit of other answers does not end it.
#[test]
fn a_long_request_lasts_until_its_client_disconnects() {
    let server = server();
    let address = server.local_addr();
    let long = |name: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let text = format!("GET /debug/runtime/flame/{name}?seconds=300 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let clients: Vec<_> = (0..4).map(|_| long("threads")).collect();
    let deadline = Instant::now() + LONG;
    // Profiles for `go tool pprof` and pages share the permits.
    for path in ["/debug/runtime/flame/tasks", "/debug/pprof/tasks"] {
        while answer(address, path, "").status != 429 {
            assert!(Instant::now() < deadline, "four long requests take all permits");
        }
    }
    assert!(threads().iter().any(|name| name.starts_with("runtime-profile")));
    // The answers to other requests take at most ten seconds.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(answer(address, "/debug/pprof/tasks", "").status, 429, "they go on");
    drop(clients);
    while answer(address, "/debug/pprof/tasks", "").status != 200 {
        assert!(Instant::now() < deadline, "the permits come back");
    }
    server.stop();
}

#[test]
fn pages_are_answered_while_the_runtime_is_blocked() {
    while_blocked(|| {
        assert!(page("threads").contains("pages_are_answered_while_the_runtime_is_blocked"));
    });
}

#[test]
fn profiles_that_are_not_requested_cost_nothing() {
    assert_eq!(results(&mut child("child_requests_no_profile")), ["no timers, no handlers, no threads"]);
}

/// Runs in a separate process, since other tests take profiles.
#[test]
#[ignore = "run by another test, in a child process"]
fn child_requests_no_profile() {
    let server = server();
    assert_eq!(answer(server.local_addr(), "/debug/runtime", "").status, 200);
    assert_eq!(std::fs::read_to_string("/proc/self/timers").unwrap(), "");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(line.trim(), 16).unwrap();
    for signal in [libc::SIGPROF, libc::SIGURG] {
        assert_eq!(caught >> (signal - 1) & 1, 0, "signal {signal}");
    }
    let threads = threads();
    assert!(threads.iter().any(|name| name.starts_with("runtime-debug")), "{threads:?}");
    assert!(!threads.iter().any(|name| name.starts_with("runtime-profile")), "{threads:?}");
    println!("RESULT no timers, no handlers, no threads");
    server.stop();
}
