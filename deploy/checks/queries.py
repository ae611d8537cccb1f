#!/usr/bin/env python3
"""Runs every panel's and every alert's query against VictoriaMetrics, filled by the demo through the real Collector. Each must return data.

The demo comes first and alone. What is empty then can only be what this machine or this build does not have; that is sent made up, and
said. Nothing else may be missing: what METRICS.md calls default must come from the demo, but for the sources named in ELSEWHERE.
"""

import re
import sys
import tempfile
import time

import complement
from catalogue import alerts, filled_in, metric_of, metrics, names_in, panel_queries
from demo import NAME, build, demo
from stack import OTELCOL, stack

# Sources that a process has or has not, by where and with what it runs.
ELSEWHERE = ("jemalloc.", "mimalloc.", "glibc.", "rust.memory.limit", "rust.cpu.throttle")
ALONE, BOTH = 40, 25  # seconds


def scaled(query):
    """Half hours in seconds: what an alert looks back on fits into the demo's time."""
    seconds = {"s": 1, "m": 60, "h": 3600}
    shorten = lambda time: f"{max(1, int(time[1]) * seconds[time[2]] // 180)}s" if int(time[1]) * seconds[time[2]] >= 1800 else time[0]
    return re.sub(r"(?<=[\[ ])(\d+)([smh])(?=[\])\s])", shorten, query)


def alert_queries():
    """(alert, query) that answer whatever the threshold says: comparisons give 0 or 1, and what `unless` joins is asked one by one."""
    for alert in alerts():
        query = re.sub(r" ([<>]=?|[!=]=) (?!bool)", r" \1 bool ", scaled(alert["expr"]))
        for part in re.split(r"\bunless on \(.*?\)", query):
            yield alert["alert"], part.strip()


def main():
    if not OTELCOL.exists():
        print(f"skipped: no Collector at {OTELCOL}; set OTELCOL")
        return
    program = build()
    known = {metric.prometheus: metric for metric in metrics()}
    asked = [(f'panel "{title}"', filled_in(query, time_range="40s")) for title, query in panel_queries()]
    asked += [(f"alert {name}", query) for name, query in alert_queries()]

    with tempfile.TemporaryDirectory() as folder, stack() as (engine, grpc, http):
        answered = lambda: {query for _, query in asked if any(line["value"][1] != "NaN" for line in engine.now(query))}
        with demo(program, ALONE + BOTH + 30, grpc, f"{folder}/demo.log") as process:
            time.sleep(ALONE)
            if process.poll() is not None:
                sys.exit("the demo ended: " + open(f"{folder}/demo.log").read())
            alone = answered()
            seen = {line["metric"]["__name__"] for line in engine.now(f'count by (__name__) ({{job="{NAME}"}})')}
            came = lambda metric: bool({metric.prometheus, f"{metric.prometheus}_bucket"} & seen)
            missing = [metric for metric in known.values() if not came(metric)]
            labels = set(engine.now(f'{{job="{NAME}"}}') and [key for line in engine.now(f'{{job="{NAME}"}}') for key in line["metric"]])
            missing += [metric for metric in known.values() if metric not in missing and any(key.replace(".", "_") not in labels for key in metric.attributes)]
            resource = {"service.name": NAME, "service.instance.id": "1"}
            for number in range(1, BOTH):
                complement.send(http, missing, resource, number)
                time.sleep(1)
            both = answered()

    wrong = [f"{metric.name} is on by default, and the demo does not report it" for metric in missing
             if metric.reported == "default" and not metric.name.startswith(ELSEWHERE) and not came(metric)]
    wrong += [f"{who}: no data for {query}" for who, query in asked if query not in both]
    print(f"{len(asked)} queries: {len(alone)} answered by the demo alone, {len(both)} with {len(missing)} metrics made up:")
    print("  " + ", ".join(metric.name for metric in missing))
    for each in wrong:
        print(each, file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
