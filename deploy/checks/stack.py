"""Runs VictoriaMetrics and the real Collector with the deployed configuration on free ports of 127.0.0.1, and ends them afterwards."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

from catalogue import DEPLOY, ROOT

OTELCOL = pathlib.Path(os.environ.get("OTELCOL", ROOT / ".." / "shared" / "tools" / "otelcol"))
VICTORIA = os.environ.get("VICTORIA", "victoria-metrics")

# VictoriaMetrics keeps resource attributes as labels, while Prometheus, Mimir and the dashboard use job and instance.
RELABEL = """
- {source_labels: [service_name], target_label: job}
- {source_labels: [service_instance_id], target_label: instance}
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(arguments, log, **environment):
    """Runs a process until the block ends."""
    with open(log, "w") as out:
        process = subprocess.Popen([str(part) for part in arguments], stdout=out, stderr=out, env=os.environ | {key: str(value) for key, value in environment.items()})
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def get(url, **fields):
    body = urllib.parse.urlencode(fields).encode() if fields else None
    try:
        with urllib.request.urlopen(url, body, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{fields.get('query', url)}: {error.read().decode()}") from None


def until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if found := condition():
                return found
        time.sleep(0.1)
    raise TimeoutError(f"{what}: not within {seconds} s")


def reachable(port):
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


class Victoria:
    """A PromQL engine that takes OTLP."""

    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"
        self.otlp = f"{self.base}/opentelemetry"

    def now(self, query):
        """The instant vector of a query."""
        return get(f"{self.base}/api/v1/query", query=query)["data"]["result"]

    def over(self, query, start, end, step=2):
        """The lines of a query."""
        return get(f"{self.base}/api/v1/query_range", query=query, start=start, end=end, step=step)["data"]["result"]


@contextlib.contextmanager
def victoria(folder):
    port = free_port()
    relabel = pathlib.Path(folder, "relabel.yml")
    relabel.write_text(RELABEL)
    flags = ["-opentelemetry.usePrometheusNaming", "-search.latencyOffset=0s", "-search.disableCache", f"-relabelConfig={relabel}"]
    with running([VICTORIA, f"-storageDataPath={folder}/victoria", f"-httpListenAddr=127.0.0.1:{port}", *flags], f"{folder}/victoria.log"):
        until(lambda: reachable(port), f"VictoriaMetrics ({folder}/victoria.log)")
        yield Victoria(port)


@contextlib.contextmanager
def collector(folder, config, **environment):
    """Yields the ports for gRPC and HTTP."""
    grpc, http = free_port(), free_port()
    log = f"{folder}/{config.stem}.log"
    # Only deploy/collector.yaml has a pipeline of profiles, which leads nowhere unless the caller says where.
    environment.setdefault("PROFILES_TO", "http://127.0.0.1:1")
    arguments = [OTELCOL, "--feature-gates=service.profilesSupport", "--config", config]
    with running(arguments, log, LISTEN="127.0.0.1", GRPC_PORT=grpc, HTTP_PORT=http, OWN_METRICS_PORT=free_port(), **environment):
        until(lambda: reachable(grpc) and reachable(http), f"Collector ({log})")
        yield grpc, http


@contextlib.contextmanager
def stack():
    """Runs VictoriaMetrics behind deploy/collector.yaml. Yields it and the Collector's gRPC and HTTP ports."""
    with tempfile.TemporaryDirectory() as folder, victoria(folder) as engine:
        with collector(folder, DEPLOY / "collector.yaml", EXPORT_TO=engine.otlp) as (grpc, http):
            yield engine, grpc, http
