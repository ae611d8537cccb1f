//! The answers of the debug endpoints, over real connections.

use support::http;

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use http::{Answer, get, request};
use opentelemetry_instrumentation_runtime::{
    CountingAllocator, Monitor, RuntimeMetrics, TaskExt, catalogue, debug,
};
use serde_json::Value;
use support::go::MONITOR_KEYS;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::system();

struct Service {
    runtime: tokio::runtime::Runtime,
    metrics: RuntimeMetrics,
    server: debug::Server,
}

impl Service {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(settings: impl FnOnce(debug::Builder) -> debug::Builder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let meter = opentelemetry::global::meter("test");
        let metrics = RuntimeMetrics::builder().runtime("", runtime.handle()).build(&meter);
        let server = settings(debug::builder(&metrics)).serve("127.0.0.1:0").unwrap();
        Service { runtime, metrics, server }
    }

    fn get(&self, path: &str) -> Answer {
        get(self.server.local_addr(), path)
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
        serde_json::from_str(&answer.body).unwrap()
    }
}

#[test]
fn metrics_json_is_the_snapshot() {
    let service = Service::new();
    let json = service.json("/debug/metrics.json");
    assert!(json["time"].is_string());
    let names: Vec<_> =
        catalogue().iter().flat_map(|family| &family.metrics).map(|metric| metric.name()).collect();
    for name in json.as_object().unwrap().keys().filter(|name| *name != "time") {
        assert!(names.contains(&name.as_str()), "{name} is in no catalogue");
    }
    for reading in service.metrics.snapshot().readings() {
        assert!(json.get(reading.metric().name()).is_some(), "{} is missing", reading.metric().name());
    }
    assert!(json["rust.memory.used"].as_u64().is_some_and(|used| used > 0));
    assert!(json["process.cpu.time"]["user"].is_f64());
}

/// The keys that expvarmon, Datadog's check and Netdata's module read.
#[test]
fn vars_have_the_keys_that_consumers_read() {
    let service = Service::new();
    let vars = service.json("/debug/vars");
    let memstats = &vars["memstats"];
    let expvarmon = "Alloc Sys HeapAlloc HeapInuse PauseTotalNs";
    let datadog = "Alloc TotalAlloc HeapAlloc HeapSys HeapIdle HeapInuse HeapReleased HeapObjects Lookups Mallocs Frees \
                   PauseTotalNs NumGC";
    let netdata = "Alloc TotalAlloc Sys HeapAlloc HeapIdle HeapInuse HeapReleased HeapObjects StackInuse StackSys \
                   MSpanInuse MCacheInuse Mallocs Frees PauseTotalNs NumGC";
    for key in [expvarmon, datadog, netdata].iter().flat_map(|keys| keys.split_whitespace()) {
        assert!(memstats[key].is_u64(), "{key}: {memstats}");
    }
    // expvarmon reads them into an array of 256; Datadog's check reads the new part, by NumGC.
    for ring in ["PauseNs", "PauseEnd"] {
        let ring = memstats[ring].as_array().unwrap();
        assert!(ring.len() == 256 && ring.iter().all(Value::is_u64));
    }
    assert!(vars["cmdline"].is_array());
    assert!(vars["rust.memory.used"].is_u64() && vars["tokio.task.count"]["1"].is_u64(), "{vars}");
    let total = |key: &str| memstats[key].as_u64().unwrap();
    assert!(total("Alloc") > 0 && total("Sys") > 0);
    assert_eq!(total("Alloc"), total("HeapAlloc"));
    assert_eq!(total("Mallocs") - total("Frees"), total("HeapObjects"));
}

#[test]
fn the_json_has_one_shape_for_one_runtime_and_for_two() {
    let service = Service::new();
    let one = service.metrics.clone();
    let shape = |metrics: &RuntimeMetrics| {
        let json = serde_json::to_value(metrics.snapshot()).unwrap();
        let count = json["tokio.task.count"].as_object().expect("an object by runtime").clone();
        count.into_iter().map(|(name, value)| (name, value.is_u64())).collect::<Vec<_>>()
    };
    assert_eq!(shape(&one), [("1".to_owned(), true)]);
    let second = tokio::runtime::Builder::new_current_thread().build().unwrap();
    one.watch_runtime("io", second.handle());
    assert_eq!(shape(&one), [("1".to_owned(), true), ("io".to_owned(), true)]);
}

#[test]
fn the_command_line_is_shown_on_request_and_the_environment_never() {
    let marker = "KEEP_THIS_TO_YOURSELF";
    let hidden = Service::new().json("/debug/vars");
    assert_eq!(hidden["cmdline"], serde_json::json!([]));
    let shown = Service::with(|builder| builder.command_line(true)).json("/debug/vars");
    let arguments: Vec<String> = std::env::args().collect();
    assert_eq!(shown["cmdline"], serde_json::json!(arguments));
    let path = std::env::var("PATH").unwrap();
    assert!(!shown.to_string().contains(&path) && !shown.to_string().contains(marker));
}

#[test]
fn events_are_snapshots_one_a_second() {
    let service = Service::new();
    let stream =
        request(service.server.local_addr(), "GET /debug/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let kind = lines.find(|line| line.to_ascii_lowercase().starts_with("content-type")).unwrap();
    assert!(kind.ends_with("text/event-stream"), "{kind}");
    let mut times = lines.filter_map(|line| {
        let json: Value = serde_json::from_str(line.strip_prefix("data: ")?).unwrap();
        assert!(json["rust.memory.used"].is_u64());
        json["time"].as_str().map(|time| humantime::parse_rfc3339(time).unwrap())
    });
    let (first, second, third) = (times.next().unwrap(), times.next().unwrap(), times.next().unwrap());
    for (earlier, later) in [(first, second), (second, third)] {
        let apart = later.duration_since(earlier).unwrap();
        assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&apart), "{apart:?}");
    }
}

#[test]
fn the_page_is_whole_without_a_script() {
    let service = Service::new();
    // The second sample makes a line.
    let page = loop {
        let answer = service.get("/debug/runtime");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
        if answer.body.contains("<polyline") {
            break answer;
        }
        std::thread::yield_now();
    };
    assert!(page.body.contains(r#"data-plot="Memory""#));
    for (path, kind) in [("page.js", "text/javascript"), ("page.css", "text/css")] {
        assert!(page.body.contains(&format!(r#""runtime/{path}""#)), "the page links to {path}");
        let answer = service.get(&format!("/debug/runtime/{path}"));
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").unwrap().starts_with(kind));
    }
}

#[test]
fn it_answers_while_the_runtime_is_blocked() {
    let service = Service::new();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let (blocked, is_blocked) = std::sync::mpsc::channel();
    let task = service.runtime.spawn(
        async move {
            blocked.send(()).unwrap();
            wait.recv().unwrap();
        }
        .with_task_name("blocking"),
    );
    is_blocked.recv().unwrap();
    // The only worker stays stuck in that task until the page shows it.
    let page = loop {
        let answer = service.get("/debug/runtime");
        if answer.body.contains(r#"data-stalled="yes""#) {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(page.body.contains("A worker is stalled: no progress for "), "{}", page.body);
    assert!(page.body.contains("runtime: 1, worker 0; cause: blocked; task: blocking"), "{}", page.body);
    assert_eq!(service.get("/debug/metrics.json").status, 200);
    go_on.send(()).unwrap();
    service.runtime.block_on(task).unwrap();
    while !service.get("/debug/runtime").body.contains(r#"data-stalled="no""#) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn every_answer_is_for_this_origin_alone() {
    let service = Service::new();
    for path in ["/debug/runtime", "/debug/vars", "/debug/metrics.json", "/debug/runtime/page.js", "/nothing"]
    {
        let answer = service.get(path);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(
            answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"),
            "{path}"
        );
    }
}

#[test]
fn only_get_and_only_allowed_hosts() {
    let service = Service::with(|builder| builder.allow_host("metrics.internal"));
    let answer = |method: &str, host: &str| {
        let text = format!("{method} /debug/vars HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        Answer::read(request(service.server.local_addr(), &text))
    };
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "BREW"] {
        let answer = answer(method, "localhost");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{method}");
    }
    assert_eq!(answer("GET", "metrics.internal").status, 200);
    assert_eq!(answer("GET", "[::ffff:127.0.0.1]").status, 200);
    for host in ["evil.example", "127.0.0.1.evil.example", "10.0.0.8", "0.0.0.0", ""] {
        assert_eq!(answer("GET", host).status, 403, "{host}");
        assert!(!answer("GET", host).body.contains("memstats"));
    }
}

#[test]
fn it_binds_to_loopback_unless_allowed_otherwise() {
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
    let error = debug::serve("0.0.0.0:0", &metrics).unwrap_err();
    assert!(matches!(error, debug::Error::NotLoopback(_)));
    assert!(error.to_string().contains("0.0.0.0:0") && error.to_string().contains("allow_remote"), "{error}");
    let server = debug::builder(&metrics).allow_remote(true).serve("0.0.0.0:0").unwrap();
    server.stop();
    let taken = debug::serve("127.0.0.1:0", &metrics).unwrap();
    let error = debug::serve(taken.local_addr(), &metrics).unwrap_err();
    assert!(matches!(error, debug::Error::Io(_)), "{error}");
    assert!(debug::serve("no such address", &metrics).is_err());
}

/// An address as host cannot come from DNS rebinding, which needs a name.
#[test]
fn a_wildcard_bind_answers_any_address_and_no_other_name() {
    let metrics = RuntimeMetrics::builder().build(&opentelemetry::global::meter("test"));
    let server = debug::builder(&metrics).allow_remote(true).serve("0.0.0.0:0").unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], server.local_addr().port()));
    let status = |host: &str| {
        Answer::read(request(address, &format!("GET /debug/vars HTTP/1.1\r\nHost: {host}\r\n\r\n"))).status
    };
    for host in ["10.1.2.3", "10.1.2.3:6060", "[fd00::1]:6060", "127.0.0.1", "localhost"] {
        assert_eq!(status(host), 200, "{host}");
    }
    for host in ["evil.example", "10.1.2.3.evil.example", "0.0.0.0", "[::]"] {
        assert_eq!(status(host), 403, "{host}");
    }
    server.stop();
}

#[test]
fn stopping_ends_the_connections_and_frees_the_port() {
    let service = Service::new();
    let address = service.server.local_addr();
    let mut stream = request(address, "GET /debug/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.read_exact(&mut [0; 64]).unwrap();
    service.server.stop();
    let mut rest = Vec::new();
    // Closed or reset, but not left open.
    let _ = stream.read_to_end(&mut rest);
    drop(stream);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn the_router_can_be_mounted_in_another_server() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let metrics =
        RuntimeMetrics::builder().runtime("", runtime.handle()).build(&opentelemetry::global::meter("test"));
    let own = axum::Router::new().route("/", axum::routing::get(|| async { "own" }));
    let router = own.merge(debug::router(&metrics));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let server = runtime.spawn(async { axum::serve(listener, router).await });
    assert_eq!(get(address, "/").body, "own");
    assert_eq!(get(address, "/").header("cache-control"), None, "the application's own routes stay");
    assert_eq!(get(address, "/debug/metrics.json").status, 200);
    server.abort();
}

#[test]
fn a_line_of_the_monitor_has_go_s_keys() {
    let service = Service::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let monitor = Monitor::memstats(&service.metrics, Duration::from_millis(10), writer);
    let mut line = String::new();
    BufReader::new(&mut reader).read_line(&mut line).unwrap();
    drop(monitor);
    let line: Value = serde_json::from_str(&line).unwrap();
    for key in MONITOR_KEYS {
        assert!(line[key].is_u64(), "{key}: {line}");
    }
    assert_eq!(
        line["Mallocs"].as_u64().unwrap() - line["Frees"].as_u64().unwrap(),
        line["LiveObjects"].as_u64().unwrap()
    );
}
