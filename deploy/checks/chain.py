"""Sends ten processes through agent and gateway to VictoriaMetrics, with the configurations of deploy/fleet. Every metric of each must arrive."""

import tempfile

import complement
from catalogue import DEPLOY, metrics
from stack import collector, until, victoria

FLEET = DEPLOY / "fleet"
PROCESSES = 10

rows = [metric for metric in metrics() if metric.reported == "default"]
with tempfile.TemporaryDirectory() as folder, victoria(folder) as engine:
    with collector(folder, FLEET / "gateway.yaml", EXPORT_TO=engine.otlp) as (gateway, _):
        with collector(folder, FLEET / "agent.yaml", GATEWAY=f"127.0.0.1:{gateway}") as (_, http):
            for number in range(PROCESSES):
                complement.send(http, rows, {"service.name": "fleet", "service.instance.id": str(number)}, 1)
            for metric in rows:
                series = metric.prometheus + ("_count" if metric.kind == "histogram" else "")
                query = f'count(count by (instance) ({series}{{job="fleet"}}))'
                until(lambda: [line["value"][1] for line in engine.now(query)] == [str(PROCESSES)], f"{series} of {PROCESSES} processes")
print(f"{PROCESSES} processes, {len(rows)} metrics each: all arrived through agent and gateway")
