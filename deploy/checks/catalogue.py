"""Reads the metrics of the library from METRICS.md, and the series that a PromQL query asks for."""

import json
import os
import pathlib
import re
from typing import NamedTuple

DEPLOY = pathlib.Path(__file__).resolve().parent.parent
ROOT = DEPLOY.parent
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "rust-runtime.json"
RULES = DEPLOY / "prometheus" / "rules.yml"


class Metric(NamedTuple):
    name: str
    kind: str
    unit: str
    attributes: tuple  # all that the metric can have
    prometheus: str
    reported: str  # default, on request, unstable


def metrics():
    """The rows of METRICS.md's tables."""
    found = []
    for line in pathlib.Path(os.environ.get("METRICS", ROOT / "METRICS.md")).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 6:
            name, kind, unit, attributes, prometheus, reported = cells
            found.append(Metric(name.strip("`"), kind, unit.strip("`"), tuple(re.findall(r"`([^`]+)`", attributes)), prometheus.strip("`"), reported))
    assert found, "METRICS.md has no table of metrics"
    return found


def panels():
    """The dashboard's panels, including those of closed rows."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from panel["panels"] if panel["type"] == "row" else [panel]


def panel_queries():
    """(panel's title, query with Grafana's variables) of each target."""
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def annotation_queries():
    return [(each["name"], each["target"]["expr"]) for each in json.loads(DASHBOARD.read_text())["annotations"]["list"]]


def rules():
    import yaml

    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def records():
    """The recorded series and their expressions."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def filled_in(query, window="8s", time_range="5m", **selected):
    """The query as Grafana sends it, with everything selected that `selected` does not narrow."""
    variables = {name: ".*" for name in ("cluster", "namespace", "service", "version", "instance")}
    values = {"__rate_interval": window, "__range": time_range} | variables | selected
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], query)


def names_in(query):
    """The series that a query reads. A selection by a pattern of names names none."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(by|on|without|ignoring|group_left|group_right) *\([^)]*\)', " ", query)
    return {word for word in re.findall(r"[a-zA-Z_:][\w:]*(?! *\()\b", bare) if "_" in word and not word.startswith("__")}


def metric_of(series, known):
    """The metric that a series belongs to. `known` maps Prometheus names to metrics."""
    return known.get(series) or known.get(re.sub("_(bucket|sum|count)$", "", series))
