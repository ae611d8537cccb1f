//! The effects of exporting on the process: forks, signals, and an end while the endpoint is dead.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp::{self, Protocol, Telemetry};
use support::child::{child, results};
use support::receiver::{Answer, Receiver};

const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];
/// The time that a busy machine may add.
const GRACE: Duration = Duration::from_secs(2);

fn telemetry(endpoint: &str, protocol: Protocol) -> Telemetry {
    let telemetry = otlp::builder().endpoint(endpoint).protocol(protocol).build().unwrap();
    telemetry.provider().meter("app").u64_counter("orders").build().add(1, &[]);
    telemetry
}

/// Returns the time of the drop.
fn time_to_drop(telemetry: Telemetry) -> Duration {
    let start = Instant::now();
    drop(telemetry);
    start.elapsed()
}

#[test]
fn an_endpoint_that_refuses_connections_delays_the_end_by_nothing() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for protocol in BOTH {
        let start = Instant::now();
        let error = telemetry(&format!("http://{address}"), protocol).shutdown().unwrap_err().to_string();
        assert!(start.elapsed() < GRACE, "{:?}", start.elapsed());
        assert!(error.contains("no connection: ") && error.contains("refused"), "{error}");
        let time = time_to_drop(telemetry(&format!("http://{address}"), protocol));
        assert!(time < GRACE, "{protocol:?}: {time:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_endpoint_that_is_never_reached_delays_the_end_by_a_second() {
    // A listener with a full queue: the kernel drops further connections silently.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
        socket.listen(0).unwrap()
    });
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queue.push(connection);
    }
    for protocol in BOTH {
        let time = time_to_drop(telemetry(&format!("http://{address}"), protocol));
        assert!(time < Duration::from_secs(1) + GRACE, "{protocol:?}: {time:?}");
    }
}

/// Something accepts connections in the place of an endpoint that is gone, as a proxy beside the service does.
#[test]
fn an_endpoint_that_never_answers_to_tls_delays_the_end_by_two_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    for protocol in BOTH {
        let start = Instant::now();
        let error = telemetry(&endpoint, protocol).shutdown().unwrap_err().to_string();
        assert!(start.elapsed() < Duration::from_secs(2) + GRACE, "{:?}", start.elapsed());
        assert!(error.contains(&endpoint) && error.contains("no connection in 2s"), "{error}");
    }
}

/// `main` has another error right after the start.
#[test]
fn an_error_at_the_start_is_not_delayed_by_a_dead_endpoint() {
    fn start(endpoint: &str, protocol: Protocol) -> Result<(), String> {
        let _telemetry = telemetry(endpoint, protocol);
        Err("the port of the service is taken".into())
    }
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for endpoint in
        [format!("http://{refused}"), format!("https://{refused}"), "http://h.invalid:4318".into()]
    {
        for protocol in BOTH {
            let begin = Instant::now();
            start(&endpoint, protocol).unwrap_err();
            let time = begin.elapsed();
            assert!(time < Duration::from_secs(1) + GRACE, "{endpoint} {protocol:?}: {time:?}");
        }
    }
}

#[test]
fn an_endpoint_that_hangs_delays_the_end_by_five_seconds() {
    let receiver = Receiver::start();
    receiver.always(Answer::Hang);
    let time = time_to_drop(telemetry(&receiver.endpoint(), Protocol::HttpProtobuf));
    assert!((Duration::from_secs(4)..Duration::from_secs(5) + GRACE).contains(&time), "{time:?}");
    let builder = otlp::builder().endpoint(receiver.endpoint()).shutdown_timeout(Duration::from_millis(300));
    let telemetry = builder.build().unwrap();
    telemetry.provider().meter("app").u64_counter("orders").build().add(1, &[]);
    let time = time_to_drop(telemetry);
    assert!(time < Duration::from_millis(300) + GRACE, "{time:?}");
}

#[test]
#[cfg(unix)]
fn each_fork_is_an_instance() {
    let receiver = Receiver::start();
    let output = child("child_forks_workers")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let exports = receiver.exports();
    assert_eq!(exports.len(), 4, "the parent twice and its forks once each");
    let ids: Vec<_> = exports.iter().map(|export| export.resource("service.instance.id").unwrap()).collect();
    let pids: Vec<_> = exports.iter().map(|export| export.resource("process.pid").unwrap()).collect();
    assert_eq!((&ids[0], &pids[0]), (&ids[3], &pids[3]), "a process keeps its identity");
    let mut distinct = ids.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 3, "{ids:?}");
}

#[test]
#[cfg(unix)]
#[ignore = "run by another test, in a child process"]
#[allow(unsafe_code, reason = "there is no other way to fork")]
fn child_forks_workers() {
    let export = || {
        let telemetry = otlp::install().unwrap();
        telemetry.provider().meter("app").u64_counter("orders").build().add(1, &[]);
        telemetry.shutdown()
    };
    export().unwrap();
    for _ in 0..2 {
        // SAFETY: no other thread of this process holds a lock: the exporting thread has ended.
        match unsafe { libc::fork() } {
            0 => {
                let is_fine = std::panic::catch_unwind(export).is_ok_and(|result| result.is_ok());
                // SAFETY: it ends the fork at once.
                unsafe { libc::_exit(i32::from(!is_fine)) };
            }
            fork => {
                let mut status = 0;
                // SAFETY: `fork` is a child of this process, and `status` can be written to.
                assert_eq!(unsafe { libc::waitpid(fork, &raw mut status, 0) }, fork);
                assert_eq!(status, 0, "the fork has exported");
            }
        }
    }
    export().unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn a_signal_goes_to_the_thread_that_waits_for_it() {
    let receiver = Receiver::start();
    // The mask is inherited.
    signals(libc::SIG_BLOCK);
    let endpoint = receiver.endpoint();
    let lines = results(child("child_waits_for_a_signal").env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint));
    signals(libc::SIG_UNBLOCK);
    let threads: Vec<_> = lines.iter().filter(|line| line.starts_with("THREAD ")).collect();
    for name in ["otlp-export", "runtime-metrics", "runtime-debug", "runtime-histor", "runtime-monitor"] {
        let mut found = threads.iter().filter(|line| line.contains(name));
        let line = found.next().unwrap_or_else(|| panic!("no {name} in {lines:?}"));
        let blocked = u64::from_str_radix(line.rsplit(' ').next().unwrap(), 16).unwrap();
        let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGKILL, libc::SIGSTOP];
        // The C library reserves 32 and 33.
        for signal in (1..=31).filter(|signal| !faults.contains(signal)) {
            assert_ne!(blocked & 1 << (signal - 1), 0, "signal {signal} in {line}");
        }
    }
    assert!(lines.contains(&"TOOK 15".to_owned()), "{lines:?}");
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "run by another test, in a child process"]
#[allow(unsafe_code, reason = "there is no other way to wait for a signal")]
fn child_waits_for_a_signal() {
    use opentelemetry_instrumentation_runtime::{Monitor, RuntimeMetrics, debug};
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    // Every thread of this program has blocked the signal since its start. Those of the library must do so themselves.
    let set = signals(libc::SIG_UNBLOCK);
    let telemetry = telemetry(&std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap(), Protocol::Grpc);
    let metrics = RuntimeMetrics::builder().build(&telemetry.meter());
    metrics.watch_runtime("watched", runtime.handle());
    let _monitor = Monitor::start(&metrics, Duration::from_secs(3600), std::io::sink());
    let _server = debug::serve("127.0.0.1:0", &metrics).unwrap();
    telemetry.force_flush().unwrap();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        println!("RESULT THREAD {} {}", field("Name:"), field("SigBlk:"));
    }
    signals(libc::SIG_BLOCK);
    let timeout = libc::timespec { tv_sec: 10, tv_nsec: 0 };
    // SAFETY: the pointers are valid for the calls, and a null pointer asks for no details.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGTERM);
        println!(
            "RESULT TOOK {}",
            libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const timeout)
        );
    }
}

/// Blocks or unblocks SIGTERM on this thread.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the signal mask of a thread has no safe interface")]
fn signals(how: i32) -> libc::sigset_t {
    // SAFETY: a set of zeros is valid, `sigemptyset` initialises it, and the calls only read it.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
        set
    }
}
