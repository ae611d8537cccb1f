//! Flush, shutdown and drop deliver from anywhere, and return in time even if the receiver fails.

use support::pace::repeat_when_late;
use support::receiver;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::metrics::{AsyncInstrument, MeterProvider};
use opentelemetry_instrumentation_runtime::otlp::{self, Error, Protocol, Telemetry};
use receiver::{Answer, Receiver};
use tokio::runtime;

const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];
/// A timeout that is meant to run out.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The time that a busy machine may add. Less than another timeout.
const GRACE: Duration = Duration::from_millis(950);

/// So long that only a flush exports.
fn telemetry(receiver: &Receiver, protocol: Protocol) -> Telemetry {
    with_timeout(receiver, protocol, Duration::from_secs(20))
}

fn with_timeout(receiver: &Receiver, protocol: Protocol, timeout: Duration) -> Telemetry {
    let hour = Duration::from_secs(3600);
    let builder = otlp::builder().endpoint(receiver.endpoint()).protocol(protocol);
    builder.interval(hour).timeout(timeout).build().unwrap()
}

fn count(telemetry: &Telemetry, orders: u64) {
    telemetry.provider().meter("app").u64_counter("orders").build().add(orders, &[]);
}

/// Counts, flushes, counts, shuts down: both values must arrive.
fn flush_and_shut_down(telemetry: &Telemetry) {
    count(telemetry, 1);
    telemetry.force_flush().unwrap();
    count(telemetry, 1);
    telemetry.shutdown().unwrap();
}

fn assert_delivered(receiver: &Receiver, expected: &[f64]) {
    let values: Vec<_> = receiver.exports().iter().map(|export| export.value("orders").unwrap()).collect();
    assert_eq!(values, expected);
}

fn in_time<T>(act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    let time = start.elapsed();
    assert!(time < TIMEOUT + GRACE, "it took {time:?}");
    result
}

#[test]
fn inside_a_current_thread_runtime() {
    for protocol in BOTH {
        let receiver = Receiver::start();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let telemetry = telemetry(&receiver, protocol);
            flush_and_shut_down(&telemetry);
        });
        assert_delivered(&receiver, &[1.0, 2.0]);
    }
}

#[test]
fn on_the_only_worker() {
    for protocol in BOTH {
        let receiver = Receiver::start();
        let telemetry = telemetry(&receiver, protocol);
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime
            .block_on(async { tokio::spawn(async move { flush_and_shut_down(&telemetry) }).await.unwrap() });
        assert_delivered(&receiver, &[1.0, 2.0]);
    }
}

#[test]
fn without_tokio_and_on_a_plain_thread() {
    for protocol in BOTH {
        let receiver = Receiver::start();
        let telemetry = telemetry(&receiver, protocol);
        thread::spawn(move || flush_and_shut_down(&telemetry)).join().unwrap();
        assert_delivered(&receiver, &[1.0, 2.0]);
    }
}

#[test]
fn after_the_runtime_that_it_was_made_in_is_gone() {
    for protocol in BOTH {
        let receiver = Receiver::start();
        let runtime = runtime::Runtime::new().unwrap();
        let telemetry = runtime.block_on(async { telemetry(&receiver, protocol) });
        drop(runtime);
        flush_and_shut_down(&telemetry);
        assert_delivered(&receiver, &[1.0, 2.0]);
    }
}

#[test]
fn while_a_panic_unwinds() {
    for protocol in BOTH {
        let receiver = Receiver::start();
        let telemetry = telemetry(&receiver, protocol);
        let unwound = thread::spawn(move || {
            count(&telemetry, 1);
            panic!("on purpose");
        });
        assert!(unwound.join().is_err());
        assert_delivered(&receiver, &[1.0]);
    }
}

#[test]
fn dropping_is_a_shutdown() {
    for protocol in BOTH {
        let receiver = Receiver::start();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { count(&telemetry(&receiver, protocol), 1) });
        assert_delivered(&receiver, &[1.0]);
    }
}

#[test]
fn a_second_shutdown_returns_the_result_of_the_first() {
    for protocol in BOTH {
        let receiver = Receiver::start();
        let telemetry = telemetry(&receiver, protocol);
        count(&telemetry, 1);
        thread::scope(|scope| {
            let both = [(); 2].map(|()| scope.spawn(|| telemetry.shutdown()));
            assert_eq!(both.map(|thread| thread.join().unwrap()), [Ok(()), Ok(())]);
        });
        assert_eq!(telemetry.shutdown(), Ok(()));
        assert_eq!(telemetry.force_flush(), Err(Error::Ended));
        drop(telemetry);
        assert_delivered(&receiver, &[1.0]);
    }
}

#[test]
fn shutting_the_provider_down_delivers_too() {
    let receiver = Receiver::start();
    let telemetry = telemetry(&receiver, Protocol::Grpc);
    count(&telemetry, 1);
    telemetry.provider().clone().shutdown().unwrap();
    assert_delivered(&receiver, &[1.0]);
    assert_eq!(telemetry.shutdown(), Ok(()));
}

#[test]
fn a_receiver_that_hangs_does_not_block_the_caller() {
    repeat_when_late(|| {
        for protocol in BOTH {
            let receiver = Receiver::start();
            receiver.always(Answer::Hang);
            let telemetry = with_timeout(&receiver, protocol, TIMEOUT);
            count(&telemetry, 1);
            let error = in_time(|| telemetry.force_flush()).unwrap_err();
            assert!(error.to_string().contains("did not answer in time"), "{error}");
            in_time(|| telemetry.shutdown()).unwrap_err();
            in_time(|| drop(telemetry));
            assert_eq!(receiver.requests(), 2);
            assert_delivered(&receiver, &[]);
        }
    });
}

#[test]
fn an_export_that_hangs_does_not_keep_the_last_one_from_arriving() {
    for protocol in BOTH {
        let receiver = Receiver::start();
        receiver.answer([Answer::Hang]);
        let telemetry = otlp::builder()
            .endpoint(receiver.endpoint())
            .protocol(protocol)
            .interval(Duration::from_millis(100))
            .timeout(TIMEOUT)
            .build()
            .unwrap();
        count(&telemetry, 1);
        assert!(receiver.wait_for_requests(1, Duration::from_secs(10)));
        count(&telemetry, 1);
        assert_eq!(in_time(|| telemetry.shutdown()), Ok(()));
        assert_delivered(&receiver, &[2.0]);
    }
}

#[test]
fn a_callback_that_never_returns_does_not_block_the_caller() {
    let receiver = Receiver::start();
    let telemetry = with_timeout(&receiver, Protocol::Grpc, TIMEOUT);
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let meter = telemetry.provider().meter("app");
    let stuck = move |_: &dyn AsyncInstrument<u64>| released.lock().unwrap().recv().unwrap_or_default();
    meter.u64_observable_gauge("stuck").with_callback(stuck).build();
    assert_eq!(in_time(|| telemetry.force_flush()), Err(Error::TimedOut(TIMEOUT)));
    assert_eq!(in_time(|| telemetry.shutdown()), Err(Error::TimedOut(TIMEOUT)));
    drop(release);
}

#[test]
fn a_callback_that_panics_is_reported_and_does_not_end_the_thread() {
    let receiver = Receiver::start();
    let telemetry = telemetry(&receiver, Protocol::Grpc);
    let meter = telemetry.provider().meter("app");
    meter.u64_observable_gauge("broken").with_callback(|_| panic!("on purpose")).build();
    let error = telemetry.force_flush().unwrap_err();
    assert!(error.to_string().contains("a callback of an instrument panicked"), "{error}");
    // The SDK cannot recover from this, but the error says so, and nothing hangs.
    assert!(matches!(telemetry.force_flush(), Err(Error::Export(_))));
    assert!(matches!(telemetry.shutdown(), Err(Error::Export(_))));
}

#[test]
fn a_callback_may_flush_or_shut_down_and_may_use_its_own_runtime() {
    let receiver = Receiver::start();
    let telemetry = telemetry(&receiver, Protocol::HttpProtobuf);
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let provider = telemetry.provider().clone();
    let own = Arc::new(OnceLock::new());
    let within = Arc::clone(&own);
    let callback = move |gauge: &dyn AsyncInstrument<u64>| {
        assert!(runtime::Handle::try_current().is_err(), "callbacks run outside of every runtime");
        // On the exporting thread a flush cannot work and must return an error.
        assert!(provider.force_flush().is_err());
        assert!(within.get().is_some_and(|telemetry: &Telemetry| telemetry.shutdown().is_err()));
        gauge.observe(runtime.block_on(async { 7 }), &[]);
    };
    telemetry.provider().meter("app").u64_observable_gauge("seven").with_callback(callback).build();
    let telemetry = own.get_or_init(|| telemetry);
    telemetry.force_flush().unwrap();
    assert_eq!(receiver.last().unwrap().value("seven"), Some(7.0));
    // It has not ended, although it was requested to.
    telemetry.force_flush().unwrap();
    telemetry.shutdown().unwrap();
}

#[test]
fn every_flush_exports_earlier_counts() {
    let receiver = Receiver::start();
    let telemetry = telemetry(&receiver, Protocol::Grpc);
    receiver.always(Answer::TakeAfter(Duration::from_millis(50)));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                count(&telemetry, 1);
                telemetry.force_flush().unwrap();
            });
        }
    });
    assert_eq!(receiver.last().unwrap().value("orders"), Some(8.0));
    assert!(receiver.exports().len() <= 8);
}

#[test]
fn switched_off_everything_succeeds_and_nothing_is_sent() {
    // In a child process, since the environment belongs to all threads.
    let receiver = Receiver::start();
    for (name, value) in [("OTEL_SDK_DISABLED", "true"), ("OTEL_METRICS_EXPORTER", "none")] {
        let output = child("child_flushes_and_shuts_down")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
            .env(name, value)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(receiver.requests(), 0);
}

#[test]
fn the_environment_of_the_process_is_read() {
    let receiver = Receiver::start();
    for protocol in ["grpc", "http/protobuf"] {
        let output = child("child_flushes_and_shuts_down")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=a%20secret")
            .env("OTEL_SERVICE_NAME", "shop")
            .env("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,team=a%2Cb")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let exports = receiver.take();
        assert_eq!(exports.len(), 2);
        for export in exports {
            assert_eq!(export.resource("service.name").as_deref(), Some("shop"));
            assert_eq!(export.resource("team").as_deref(), Some("a,b"));
            assert_eq!(export.headers["x-api-key"], "a secret");
        }
    }
}

#[test]
fn a_receiver_of_the_other_protocol_is_reported_at_once() {
    for protocol in BOTH {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        // The first bytes of a server of the other protocol.
        let answer: &[u8] = match protocol {
            Protocol::Grpc => b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n",
            _ => b"\0\0\0\x04\0\0\0\0\0",
        };
        let server = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let read = connection.read(&mut [0; 16]).unwrap();
            assert!(read > 0);
            connection.write_all(answer).unwrap();
            // Until the other side closes.
            let _ = connection.read_to_end(&mut Vec::new());
        });
        let builder = otlp::builder().endpoint(endpoint).protocol(protocol);
        let telemetry = builder.timeout(TIMEOUT).build().unwrap();
        count(&telemetry, 1);
        // The only attempt: the listener accepts no second connection.
        let error = telemetry.force_flush().unwrap_err().to_string();
        let sentence = match protocol {
            Protocol::Grpc => "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
            _ => "set OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
        };
        assert!(error.contains(sentence), "{protocol:?}: {error}");
        server.join().unwrap();
    }
}

#[test]
fn the_console_shows_a_line_for_each_point() {
    let output =
        child("child_flushes_and_shuts_down").env("OTEL_METRICS_EXPORTER", "console").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("orders 1\norders 2\n"), "{text}");
}

#[test]
#[ignore = "run by other tests, in a child process"]
fn child_flushes_and_shuts_down() {
    let telemetry = otlp::install().unwrap();
    flush_and_shut_down(&telemetry);
    // The thread has ended; it is not only idle.
    #[cfg(target_os = "linux")]
    while exporting_threads() > 0 {
        thread::yield_now();
    }
}

#[cfg(target_os = "linux")]
fn exporting_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).filter(|name| name.trim() == "otlp-export").count()
}

#[test]
fn an_exit_without_shutdown_does_no_harm() {
    let receiver = Receiver::start();
    let output = child("child_exits_without_shutdown")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_delivered(&receiver, &[1.0]);
}

#[test]
#[ignore = "run by another test, in a child process"]
fn child_exits_without_shutdown() {
    let telemetry = otlp::install().unwrap();
    count(&telemetry, 1);
    telemetry.force_flush().unwrap();
    std::process::exit(7);
}

#[test]
#[cfg(unix)]
fn a_fork_does_no_harm() {
    let receiver = Receiver::start();
    for protocol in ["grpc", "http/protobuf"] {
        let output = child("child_forks")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_delivered(&receiver, &[1.0, 2.0, 1.0, 2.0]);
}

#[test]
#[cfg(unix)]
#[ignore = "run by another test, in a child process"]
#[allow(unsafe_code, reason = "there is no other way to fork")]
fn child_forks() {
    let telemetry = otlp::install().unwrap();
    count(&telemetry, 1);
    telemetry.force_flush().unwrap();
    // SAFETY: the fork goes on with this thread alone. What it does takes no lock that another thread may have held:
    // that is what is tested.
    match unsafe { libc::fork() } {
        0 => {
            let fine = telemetry.force_flush() == Err(Error::Ended)
                && telemetry.shutdown() == Ok(())
                && catch_unwind(AssertUnwindSafe(|| drop(telemetry))).is_ok();
            // SAFETY: it ends the fork at once.
            unsafe { libc::_exit(if fine { 0 } else { 1 }) };
        }
        fork => {
            let mut status = 0;
            // SAFETY: `fork` is a child of this process, and `status` is there to be written to.
            assert_eq!(unsafe { libc::waitpid(fork, &raw mut status, 0) }, fork);
            assert_eq!(status, 0, "the fork was not fine");
            count(&telemetry, 1);
            telemetry.shutdown().unwrap();
        }
    }
}

/// Returns a process that runs one of the ignored tests, without variables of OpenTelemetry apart from those added.
fn child(test: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command
}
