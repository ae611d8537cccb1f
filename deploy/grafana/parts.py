"""The parts of a dashboard: panels of each kind, and their places on the grid."""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RED, AMBER, GREEN = "red", "orange", "green"
# OpenTelemetry exports once a minute by default. Grafana's own default of 15 s would leave each rate without data.
MIN_INTERVAL = "1m"


def steps(thresholds):
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in thresholds]}


def panel(kind, title, unit, width, height, queries, description, options, defaults=None, **rest):
    targets = [
        {
            "refId": chr(ord("A") + at),
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": query,
            "legendFormat": legend,
            "range": True,
            # $__rate_interval is at least four of these.
            "interval": "$export_interval",
        }
        for at, (query, legend) in enumerate(queries)
    ]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "interval": MIN_INTERVAL,
        "gridPos": {"h": height, "w": width, "x": 0, "y": 0},
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": unit, **(defaults or {})}, "overrides": []},
        "options": options,
        **rest,
    }


def stat(title, unit, query, thresholds, description):
    """One coloured number."""
    options = {
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": "value",
        "wideLayout": True,
    }
    defaults = {"color": {"mode": "thresholds"}, "thresholds": steps(thresholds), "noValue": "–"}
    return panel("stat", title, unit, 4, 4, [(query, "")], description, options, defaults)


def lines(title, unit, queries, description, width=8, limit=None, stack=False, log=False):
    """Lines over time. `limit` draws a dashed line; `log` is for values that span decades."""
    # "auto" draws points where samples are sparse; a single sample would be invisible otherwise.
    custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 40 if stack else 8, "showPoints": "auto", "spanNulls": False}
    custom["stacking"] = {"mode": "normal" if stack else "none", "group": "A"}
    defaults = {"custom": custom, "color": {"mode": "palette-classic"}}
    if log:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    else:
        defaults["min"] = 0
    if limit is not None:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = steps([(None, "transparent"), (limit, RED)])
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, unit, width, 8, queries, description, options, defaults)


def signals(title, columns, description):
    """A table with a row for each instance and a column for each signal: (name, query, unit, thresholds)."""
    queries = [(query, "") for _, query, _, _ in columns]
    table = panel("table", title, "short", 24, 8, queries, description, {"showHeader": True, "cellHeight": "sm", "frameIndex": 0})
    names = {}
    for target, (name, _, unit, thresholds) in zip(table["targets"], columns):
        target |= {"format": "table", "instant": True, "range": False}
        names[f"Value #{target['refId']}"] = name
        properties = [
            {"id": "unit", "value": unit},
            {"id": "thresholds", "value": steps(thresholds)},
            {"id": "custom.cellOptions", "value": {"type": "color-text"}},
        ]
        table["fieldConfig"]["overrides"].append({"matcher": {"id": "byName", "options": name}, "properties": properties})
    labels = {"job": "Service", "instance": "Instance", "k8s_cluster_name": "Cluster", "k8s_namespace_name": "Namespace", "k8s_pod_name": "Pod"}
    hidden = {name: True for name in ("Time", "host_name", "deployment_environment_name")}
    table["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": hidden, "renameByName": {**labels, **names}}},
    ]
    table["options"]["sortBy"] = [{"displayName": columns[0][0], "desc": True}]
    return table


def place(panels, y):
    """Left to right, a new line when the width of 24 is used up. Returns where the next row begins."""
    x = height = 0
    for panel in panels:
        box = panel["gridPos"]
        if x + box["w"] > 24:
            x, y, height = 0, y + height, 0
        box["x"], box["y"] = x, y
        x, height = x + box["w"], max(height, box["h"])
    return y + height
