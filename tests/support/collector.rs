//! The real OpenTelemetry Collector, in a child process on free ports of 127.0.0.1.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::skip::skip;

/// A running Collector. Dropping it ends the process.
pub struct Collector {
    process: Child,
    ports: Ports,
    printed: Arc<Printed>,
    /// Holds the configuration.
    _directory: tempfile::TempDir,
}

#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub grpc: u16,
    pub http: u16,
}

/// The differences between Collectors, as YAML.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// More settings of the servers for both protocols, such as `tls: {..}`.
    pub server: String,
    /// More settings of the gRPC server.
    pub grpc: String,
    /// Listens on Unix sockets in this directory, `grpc.sock` and `http.sock`, rather than on ports.
    pub sockets: Option<PathBuf>,
    /// A processor's name and its settings.
    pub processor: Option<(&'static str, &'static str)>,
    /// Takes profiles, which is experimental.
    pub profiles: bool,
}

#[derive(Default)]
struct Printed {
    text: Mutex<String>,
    more: Condvar,
}

/// Returns the binary, or `None` after a message that the test is skipped.
pub fn binary() -> Option<PathBuf> {
    let given = std::env::var_os("OTELCOL").map(PathBuf::from);
    let path = given
        .unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/tools/otelcol")));
    if !path.is_file() {
        skip(&format!("there is no Collector at {}, set OTELCOL", path.display()));
        return None;
    }
    Some(path)
}

impl Ports {
    /// Returns ports that are free at present.
    pub fn free() -> Self {
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [grpc, http] = sockets.map(|socket| socket.local_addr().unwrap().port());
        Ports { grpc, http }
    }
}

impl Collector {
    /// Returns `None` without the binary.
    pub fn start(config: &Config) -> Option<Self> {
        binary()?;
        // Another process may take a port before the Collector does.
        let started = (0..5).find_map(|_| Self::start_at(Ports::free(), config));
        Some(started.expect("the Collector starts"))
    }

    /// Returns `None` without the binary, or if it does not start.
    pub fn start_at(ports: Ports, config: &Config) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("collector.yaml");
        std::fs::write(&file, yaml(ports, config)).unwrap();
        let mut command = Command::new(binary()?);
        if config.profiles {
            command.arg("--feature-gates=service.profilesSupport");
        }
        let mut process = command
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let printed = Arc::new(Printed::default());
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let collector = Collector { process, ports, printed: Arc::clone(&printed), _directory: directory };
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *printed.text.lock().unwrap() += &(line + "\n");
                printed.more.notify_all();
            }
            *printed.text.lock().unwrap() += GONE;
            printed.more.notify_all();
        });
        let ended_or_ready = |text: &str| text.contains(READY) || text.contains(GONE);
        assert!(collector.wait_for(ended_or_ready, Duration::from_secs(20)), "{}", collector.printed());
        collector.printed().contains(READY).then_some(collector)
    }

    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Returns its output so far.
    pub fn printed(&self) -> String {
        self.printed.text.lock().unwrap().clone()
    }

    /// Waits until its output meets a condition.
    pub fn wait_for(&self, wanted: impl Fn(&str) -> bool, timeout: Duration) -> bool {
        let guard = self.printed.text.lock().unwrap();
        let (_guard, waited) =
            self.printed.more.wait_timeout_while(guard, timeout, |text| !wanted(text)).unwrap();
        !waited.timed_out()
    }

    /// Returns the values of a metric with one number point, one for each export that came in.
    pub fn values(&self, metric: &str) -> Vec<f64> {
        let printed = self.printed();
        let name = format!("     -> Name: {metric}\n");
        printed
            .split(&name)
            .skip(1)
            .filter_map(|rest| {
                let value = rest.split("\nValue: ").nth(1)?.lines().next()?;
                value.parse().ok()
            })
            .collect()
    }
}

const READY: &str = "Everything is ready.";
const GONE: &str = "(the Collector has ended)";

impl Drop for Collector {
    fn drop(&mut self) {
        // Ends it like a crash, without notice to its clients.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn yaml(ports: Ports, config: &Config) -> String {
    let Config { server, grpc, sockets, processor, profiles } = config;
    let endpoint = |port: u16, name: &str| match sockets {
        Some(directory) => format!("\"{}\", transport: unix", directory.join(name).display()),
        None => format!("\"127.0.0.1:{port}\""),
    };
    let (processors, used) = match processor {
        Some((name, settings)) => (format!("processors: {{{name}: {settings}}}\n"), format!("[{name}]")),
        None => (String::new(), "[]".to_owned()),
    };
    let separate = |settings: &str| if settings.is_empty() { String::new() } else { format!(", {settings}") };
    format!(
        "receivers:\n  otlp:\n    protocols:\n      \
         grpc: {{endpoint: {}{}{}}}\n      \
         http: {{endpoint: {}{}}}\n\
         {processors}\
         exporters:\n  debug: {{verbosity: detailed}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    \
         metrics: {{receivers: [otlp], processors: {used}, exporters: [debug]}}\n    \
         traces: {{receivers: [otlp], exporters: [debug]}}\n    \
         logs: {{receivers: [otlp], exporters: [debug]}}\n{}",
        endpoint(ports.grpc, "grpc.sock"),
        separate(server),
        separate(grpc),
        endpoint(ports.http, "http.sock"),
        separate(server),
        if *profiles { "    profiles: {receivers: [otlp], exporters: [debug]}\n" } else { "" },
    )
}
