"""Sends made-up values over OTLP for metrics that the demo does not have on every machine: another allocator's metrics, a cgroup's limit, what is compiled out."""

import json
import time
import urllib.request


def point(metric, number, at):
    keys = [key for key in metric.attributes if not key.startswith("tokio.runtime")]
    common = {"timeUnixNano": str(at), "startTimeUnixNano": "1", "attributes": [{"key": key, "value": {"stringValue": "example"}} for key in keys]}
    if metric.kind == "histogram":
        return common | {"count": str(number * 10), "sum": number, "bucketCounts": [str(number * 9), str(number), "0"], "explicitBounds": [0.001, 0.1]}
    return common | {"asDouble": number}


def stream(metric, number, at):
    points = [point(metric, number, at)]
    body = {
        "counter": {"sum": {"dataPoints": points, "isMonotonic": True, "aggregationTemporality": 2}},
        "up-down counter": {"sum": {"dataPoints": points, "isMonotonic": False, "aggregationTemporality": 2}},
        "gauge": {"gauge": {"dataPoints": points}},
        "histogram": {"histogram": {"dataPoints": points, "aggregationTemporality": 2}},
    }[metric.kind]
    return {"name": metric.name, "unit": metric.unit, **body}


def send(http_port, metrics, resource, number):
    """Sends one export of all the metrics for the process that `resource` describes, with counters at `number`."""
    at = time.time_ns()
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in resource.items()]
    scope = {"scope": {"name": "complement"}, "metrics": [stream(metric, number, at) for metric in metrics]}
    body = {"resourceMetrics": [{"resource": {"attributes": attributes}, "scopeMetrics": [scope]}]}
    request = urllib.request.Request(f"http://127.0.0.1:{http_port}/v1/metrics", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert "partialSuccess" not in answer.read().decode().replace('"partialSuccess":{}', ""), "the Collector refused some points"
