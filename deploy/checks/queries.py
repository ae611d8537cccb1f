#!/usr/bin/env python3
"""Runs the queries of all panels and alerts in VictoriaMetrics, filled by the demo through the real Collector. Each must return data.

First the demo runs alone. Metrics that this machine or this build does not have are missing then; the script lists them and sends made-up
values. Every metric that METRICS.md calls default must come from the demo, except for the sources in ELSEWHERE.
"""

import re
import sys
import tempfile
import time

import complement
from catalogue import alerts, annotation_queries, filled_in, metrics, panel_queries, records
from demo import NAME, build, demo
from stack import OTELCOL, stack

# Sources that depend on the machine, on the allocator and on a running heap profile.
ELSEWHERE = ("jemalloc.", "mimalloc.", "glibc.", "rust.memory.limit", "rust.cpu.throttle", "rust.task.memory.used")
ALONE, BOTH = 40, 25  # seconds


def scaled(query):
    """What an alert looks back on, shortened to the time that the demo runs."""
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    def shorten(time):
        length = int(time[1]) * seconds[time[2]]
        return f"{min(20, max(5, length // 1200))}s" if length >= 1800 else time[0]

    return re.sub(r"(?<=[\[ ])(\d+)([smhd])(?=[\]):\s])", shorten, query)


def expanded(query, recorded):
    """The query with expressions in place of recorded series, because VictoriaMetrics evaluates no rules. An offset moves to the series inside."""
    for name, expression in recorded.items():

        def put_in(found):
            moved = re.sub(r"([a-z:][\w:]*_[\w:]+(?:\[\w+\])?)(?=\)+$)", rf"\1{found[1] or ''}", expression)
            return f"({moved})"

        # A range of an expression is a subquery.
        query = re.sub(rf"{name}\[(\w+)\]", rf"({expression})[\1:1s]", query)
        query = re.sub(rf"{name}(?![\w:])( offset \w+)?", put_in, query)
    return expanded(query, recorded) if any(name in query for name in recorded) else query


def alert_queries():
    """(alert, query) that answer whether or not the alert fires.

    A comparison gives 0 or 1, both sides of `unless` have to answer, and a value that only a fault brings (a panic, a stall) may be any value.
    """
    recorded = records()
    for alert in alerts():
        query = scaled(expanded(alert["expr"], recorded))
        query = re.sub(r" ([<>]=?|[!=]=) (?!bool)", r" \1 bool ", query)
        query = re.sub(r"\bunless\b", "and", query)
        yield alert["alert"], re.sub(r'(tokio_stall_cause|rust_task_outcome)!?="\w+"', r'\1=~".*"', query)


def main():
    if not OTELCOL.exists():
        print(f"skipped: no Collector at {OTELCOL}; set OTELCOL")
        return
    program = build()
    known = {metric.prometheus: metric for metric in metrics()}
    asked = [(f'panel "{title}"', filled_in(query, time_range="40s")) for title, query in panel_queries()]
    asked += [(f'annotation "{title}"', filled_in(query)) for title, query in annotation_queries() if title == "Starts"]
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
