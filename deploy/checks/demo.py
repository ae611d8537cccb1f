"""Builds and runs the demo, as the image does."""

import contextlib
import json
import os
import pathlib
import subprocess

from catalogue import DEPLOY, ROOT
from stack import running

NAME = "demo"


def build():
    """Builds the demo and returns its path. With DEMO in the environment there is no build."""
    if "DEMO" in os.environ:
        return os.environ["DEMO"]
    command = ["cargo", "build", "--locked", "-p", "demo", "--message-format", "json"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [message["executable"] for message in map(json.loads, built.splitlines()) if message.get("executable")][-1]


@contextlib.contextmanager
def limited():
    """Makes a cgroup with the limits of a container, 128 MB and two CPUs, if this user may make one. Yields the words to put before a command."""
    root = pathlib.Path("/sys/fs/cgroup")
    wanted = [("memory", "memory.limit_in_bytes", "134217728"), ("cpu", "cpu.cfs_quota_us", "200000")]
    if (root / "cgroup.controllers").exists():
        wanted = [("", "memory.max", "134217728"), ("", "cpu.max", "200000 100000")]
    groups = {}
    try:
        for controller, file, value in wanted:
            group = groups.setdefault(controller, root / controller / f"rust-runtime-demo-{os.getpid()}")
            group.mkdir(exist_ok=True)
            (group / file).write_text(value)
        enter = "".join(f"echo $$ > {group}/cgroup.procs && " for group in groups.values())
        before = ["sh", "-c", enter + 'exec "$@"', "sh"]
    except OSError:
        before = []
    try:
        yield before
    finally:
        for group in groups.values():
            with contextlib.suppress(OSError):
                group.rmdir()


@contextlib.contextmanager
def demo(path, seconds, grpc_port, log, instance="1"):
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{grpc_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_METRIC_EXPORT_INTERVAL": 1000,
        "OTEL_SERVICE_NAME": NAME,
        "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={instance}",
    }
    with limited() as enter, running([*enter, path, "--for", f"{seconds}s"], log, **environment) as process:
        yield process
