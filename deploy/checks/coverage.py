#!/usr/bin/env python3
"""Checks that queries ask only for metrics of the library, that the dashboard shows every default metric, and that panels and alerts say what to do."""

import json
import re
import subprocess
import sys
import tempfile

import yaml

from catalogue import RULES, alerts, annotation_queries, filled_in, metric_of, metrics, names_in, panel_queries, panels, records

wrong = []
known = {metric.prometheus: metric for metric in metrics()}

shown = set()
for title, query in panel_queries():
    for series in names_in(query):
        if metric := metric_of(series, known):
            shown.add(metric)
        else:
            wrong.append(f'panel "{title}": {series} is not in METRICS.md')
for metric in known.values():
    if metric.reported == "default" and metric not in shown:
        wrong.append(f"{metric.name} is on by default and not on the dashboard")

for name, query in annotation_queries():
    wrong += [f'annotation "{name}": {series} is not in METRICS.md' for series in names_in(query) if not metric_of(series, known)]

for panel in panels():
    # Both are needed: Grafana takes the step of a query from its own minimum, and falls back to the panel's.
    if not panel.get("interval") or not all(target.get("interval") for target in panel["targets"]):
        wrong.append(f'panel "{panel["title"]}": no minimal interval, so an export each minute leaves rates without data')
    if any(re.search(r"\[[^]]*:", target["expr"]) for target in panel["targets"]):
        wrong.append(f'panel "{panel["title"]}": a subquery, which is computed anew with each refresh')
    if len(panel["description"]) < 60:
        wrong.append(f'panel "{panel["title"]}": the description does not say what to do')
titles = [panel["title"] for panel in panels()]
wrong += [f'two panels are called "{title}"' for title in set(titles) if titles.count(title) > 1]

cases = [case for file in RULES.parent.glob("*.test.yml") for case in yaml.safe_load(file.read_text())["tests"]]
firing = {case["name"]: json.dumps([check["exp_samples"] for check in case["promql_expr_test"]]) for case in cases}
# Cases with the versions 1 and 2 of one instance.
side_by_side = set()
for case in cases:
    series = {entry["series"] for entry in case["input_series"]}
    if any('service_version="1"' in each and each.replace('service_version="1"', 'service_version="2"') in series for each in series):
        side_by_side.add(case["name"])
recorded = records()
for name, query in recorded.items():
    wrong += [f"record {name}: {series} is not in METRICS.md" for series in names_in(query) if not metric_of(series, known) and series not in recorded]
for alert in alerts():
    wrong += [f"alert {alert['alert']}: {series} is not in METRICS.md" for series in names_in(alert["expr"]) if not metric_of(series, known) and series not in recorded]
    wrong += [f"alert {alert['alert']}: no {text}" for text in ("summary", "description", "runbook") if not alert["annotations"].get(text)]
    # A case lists everything that fires, so it is also a silent case of every other alert.
    fires = {name for name, expected in firing.items() if f'alertname=\\"{alert["alert"]}\\"' in expected}
    if not fires:
        wrong.append(f"alert {alert['alert']}: no case in which it fires")
    elif not fires & side_by_side:
        wrong.append(f"alert {alert['alert']}: no case with two versions of an instance side by side")
    if alert["labels"]["severity"] not in ("critical", "warning", "info"):
        wrong.append(f"alert {alert['alert']}: unknown severity")
    # A runbook may only name panels that exist.
    for name in re.findall(r'"([A-Z][^"]*)"', alert["annotations"]["runbook"]):
        if name not in titles:
            wrong.append(f'alert {alert["alert"]}: the runbook names a panel "{name}" that the dashboard does not have')

# Prometheus parses the dashboard's queries here, because VictoriaMetrics, which runs them, accepts more than PromQL.
with tempfile.NamedTemporaryFile("w", suffix=".yml") as rules:
    rules.write("groups: [{name: panels, rules: [\n")
    for at, (_, query) in enumerate([*panel_queries(), *annotation_queries()]):
        rules.write(f"  {{record: 'panel:{at}', expr: '{filled_in(query)}'}},\n")
    rules.write("]}]\n")
    rules.flush()
    parsed = subprocess.run([sys.argv[1], "check", "rules", "--lint=none", rules.name], capture_output=True, text=True)
    if parsed.returncode:
        wrong.append(parsed.stdout + parsed.stderr)

for each in wrong:
    print(each, file=sys.stderr)
if wrong:
    sys.exit(1)
print(f"{len(titles)} panels with {len(panel_queries())} queries show {len(shown)} of {len(known)} metrics; {len(alerts())} alerts")
