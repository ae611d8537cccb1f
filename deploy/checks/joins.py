"""Every query of the dashboard in a real Prometheus, on made-up data with labels that a deployment may have or not have.

A query that cannot match its two sides is an error there ("many-to-many matching not allowed"), and one that needs a label is empty. Each
service below has every metric of METRICS.md. Every query must answer for each service. Two versions of one instance, visible at the same
time, must give as many lines as one version does, and the same sums.
"""

import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

from catalogue import annotation_queries, filled_in, metrics, panel_queries
from stack import free_port, get, running, until

# Ended on a full minute; the blocks hold two hours of one sample a minute, the default of OpenTelemetry.
END, MINUTES, STEP = 1_700_000_040, 120, 60
POD = {"k8s_pod_name": "api-0", "host_name": "node", "team": "blue"}
# service: the label sets of its processes, and the range of minutes in which each of them reports
SERVICES = {
    "plain": [({"instance": "1"}, 0, MINUTES)],
    "promoted": [({"instance": "1", "service_version": "1", **POD}, 0, MINUTES)],
    # As after a change of version: the old series is still visible for five minutes.
    "deployed": [({"instance": "1", "service_version": "1", **POD}, 0, MINUTES - 2), ({"instance": "1", "service_version": "2", **POD}, MINUTES - 10, MINUTES)],
    # Both for the whole time, as if two processes shared an instance id.
    "both": [({"instance": "1", "service_version": "1", **POD}, 0, MINUTES), ({"instance": "1", "service_version": "2", **POD}, 0, MINUTES)],
    # A provider without service.instance.id, alone and with a promoted attribute that no query knows.
    "unnamed": [({}, 0, MINUTES)],
    "unnamed, promoted": [({"team": "blue"}, 0, MINUTES), ({"team": "red"}, 0, MINUTES)],
    "clusters": [({"instance": "1", "k8s_cluster_name": name, "k8s_namespace_name": "shop"}, 0, MINUTES) for name in ("east", "west")],
}
# A new version adds a line or a count to these.
BY_VERSION = {"Instances by version", "Starts in 10 minutes", "Deploys"}
# As the dashboard's minimal interval of a minute makes it.
WINDOW = {"window": "4m", "time_range": "30m"}


def written(metric, labels, start, end):
    """The series of a metric in the text format, cumulative where it is a counter."""
    own = {key.replace(".", "_"): "example" for key in metric.attributes if key not in ("tokio.runtime.name", "tokio.worker.index")}
    base = {**labels, **own}
    name = metric.prometheus
    variants = [(name, {}, 1)]
    if metric.kind == "histogram":
        variants = [(f"{name}_bucket", {"le": bound}, share) for bound, share in (("0.001", 5), ("0.1", 9), ("+Inf", 10))]
    for series, more, share in variants:
        text = ",".join(f'{key}="{value}"' for key, value in {**base, **more}.items())
        for minute in range(start, end):
            value = share * (minute + 1) if metric.kind in ("counter", "histogram") else 100
            yield series, f"{series}{{{text}}} {value} {END - (MINUTES - 1 - minute) * STEP}"


def page():
    """OpenMetrics wants the series of a name together."""
    found = {}
    for metric, (job, processes) in itertools.product(metrics(), SERVICES.items()):
        for labels, start, end in processes:
            for series, line in written(metric, {"job": job, **labels}, start, end):
                found.setdefault(series, []).append(line)
    for series, series_lines in found.items():
        yield f"# TYPE {series} unknown"
        yield from series_lines
    yield "# EOF"


@contextlib.contextmanager
def prometheus(folder):
    text = pathlib.Path(folder, "page.txt")
    text.write_text("\n".join(page()) + "\n")
    data = f"{folder}/data"
    subprocess.run([os.environ["PROMTOOL"], "tsdb", "create-blocks-from", "openmetrics", text, data], check=True, stdout=subprocess.DEVNULL)
    config = pathlib.Path(folder, "prometheus.yml")
    config.write_text("{}")
    port = free_port()
    command = [os.environ["PROMETHEUS"], f"--config.file={config}", f"--storage.tsdb.path={data}", "--storage.tsdb.retention.time=100y", f"--web.listen-address=127.0.0.1:{port}"]
    with running(command, f"{folder}/prometheus.log"):
        base = f"http://127.0.0.1:{port}"
        # Until its data is loaded it answers 503, which is an OSError.
        until(lambda: urllib.request.urlopen(f"{base}/-/ready", timeout=2).close() or True, "Prometheus", 60)
        yield base


def answered(base, query, job):
    """The lines at the end of the time range, by labels."""
    filled = filled_in(query, service=job, **WINDOW)
    result = get(f"{base}/api/v1/query_range", query=filled, start=END - 60, end=END, step=60)["data"]["result"]
    return {json.dumps({key: value for key, value in line["metric"].items() if key != "job"}, sort_keys=True): float(line["values"][-1][1]) for line in result}


wrong = []
with tempfile.TemporaryDirectory() as folder, prometheus(folder) as base:
    asked = [*panel_queries(), *annotation_queries()]
    for title, query in asked:
        try:
            answers = {job: answered(base, query, job) for job in [*SERVICES, ".*"]}
        except RuntimeError as error:
            wrong.append(f"{title}: {error}")
            continue
        if title == "Deploys":
            found = {job: sorted(lines) for job, lines in answers.items() if lines and job != ".*"}
            if found != {"deployed": ['{"service_version": "2"}']}:
                wrong.append(f"{title}: {found}, expected version 2 of the service deployed")
        if title in BY_VERSION:
            continue
        wrong += [f"{title}: no data for the service {job}: {query}" for job, lines in answers.items() if not lines]
        for job in ("deployed", "both"):
            if answers[job].keys() != answers["promoted"].keys():
                wrong.append(f"{title}: {sorted(answers[job])} for the service {job}, {sorted(answers['promoted'])} for one version: {query}")
        # A gauge of two versions of one instance counts once.
        if "rate" not in query and answers["both"] != answers["promoted"] and "increase" not in query:
            wrong.append(f"{title}: {answers['both']} for two versions, {answers['promoted']} for one: {query}")
for each in wrong:
    print(each, file=sys.stderr)
if wrong:
    sys.exit(1)
print(f"{len(asked)} queries answer for {len(SERVICES)} kinds of labels; two versions of an instance break no match and count once")
