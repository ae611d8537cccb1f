"""The demo, as the image builds it."""

import json
import os
import re
import subprocess

from catalogue import DEPLOY, ROOT
from stack import running

FEATURES = re.search(r"^ARG FEATURES=(\S+)", (DEPLOY / "Dockerfile").read_text(), re.M)[1]
NAME = "demo"


def build():
    """Its path. DEMO in the environment spares the build."""
    if "DEMO" in os.environ:
        return os.environ["DEMO"]
    command = ["cargo", "build", "--locked", "--example", "demo", "--features", FEATURES, "--message-format", "json"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [message["executable"] for message in map(json.loads, built.splitlines()) if message.get("executable")][-1]


def demo(path, seconds, grpc_port, log, instance="1"):
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{grpc_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_METRIC_EXPORT_INTERVAL": 1000,
        "OTEL_SERVICE_NAME": NAME,
        "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={instance}",
    }
    return running([path, "--for", f"{seconds}s"], log, **environment)
