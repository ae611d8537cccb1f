"""Draws the dashboard from its JSON (panels, positions, units, limits and queries) with the data of a real demo."""

import json
import math
import sys
import tempfile
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullLocator

from catalogue import DASHBOARD, DEPLOY, filled_in
from demo import build, demo
from stack import OTELCOL, stack

PICTURES = DEPLOY / "pictures"
UNIT, COLUMN, DPI = 0.3, 0.52, 110  # inches for a row and for a column of the grid
BACKGROUND, PANEL, TEXT, FAINT, LINE = "#111217", "#181b1f", "#d8d9da", "#8e8e99", "#2c3235"
COLORS = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a"]
NAMED = {"red": "#f2495c", "orange": "#ff9830", "green": "#73bf69", "text": TEXT, "transparent": None}


def shown(value, unit):
    """Formats a value as Grafana does."""
    if value is None or math.isnan(value):
        return "–"
    if unit == "percentunit":
        return f"{100 * value:.3g} %" if value < 10 else f"{100 * value:.0f} %"
    if unit == "s":
        for size, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}" if value < 60 else f"{value / 60:.3g} min"
        return "0 s"
    suffix = {"Bps": "B/s", "bytes": "B", "ops": "/s"}.get(unit, "")
    base, names = (1024, ("", "Ki", "Mi", "Gi", "Ti")) if unit in ("bytes", "Bps") else (1000, ("", "k", "M", "G"))
    at = 0
    while abs(value) >= base and at < len(names) - 1:
        value, at = value / base, at + 1
    return f"{value:.3g} {names[at]}{suffix}".rstrip()


def color_for(value, thresholds):
    reached = [step["color"] for step in thresholds["steps"] if step["value"] is None or value >= step["value"]]
    return NAMED[reached[-1]]


def legend(target, labels):
    text = target["legendFormat"]
    for key, value in labels.items():
        text = text.replace("{{" + key + "}}", value)
    return text.split("{{")[0].strip() or "value"


class Row:
    """Draws one row of the dashboard as one picture."""

    def __init__(self, title, panels):
        self.title, self.panels = title, panels
        self.top = min(panel["gridPos"]["y"] for panel in panels)
        height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) - self.top
        self.size = (24 * COLUMN, (height + 1.2) * UNIT)
        self.figure = plt.figure(figsize=self.size, dpi=DPI, facecolor=BACKGROUND)
        self.figure.text(0.006, 1 - 0.8 * UNIT / self.size[1], title, color=TEXT, fontsize=12, weight="bold")

    def box(self, panel):
        """Draws the panel's frame and title, and returns the axes inside."""
        grid, (width, height) = panel["gridPos"], self.size
        x, w = grid["x"] * COLUMN / width, grid["w"] * COLUMN / width
        h = grid["h"] * UNIT / height
        y = 1 - (grid["y"] - self.top + 1.2) * UNIT / height - h
        pad_x, pad_y = 0.05 / width, 0.05 / height
        self.figure.patches.append(plt.Rectangle((x + pad_x, y + pad_y), w - 2 * pad_x, h - 2 * pad_y, transform=self.figure.transFigure, facecolor=PANEL, edgecolor=LINE, zorder=-1))
        self.figure.text(x + 0.12 / width, y + h - 0.26 / height, panel["title"], color=TEXT, fontsize=8.5, weight="bold")
        left, right, bottom, top = (0.62, 0.15, 0.62, 0.36) if panel["type"] == "timeseries" else (0.12, 0.12, 0.1, 0.36)
        axes = self.figure.add_axes((x + left / width, y + bottom / height, w - (left + right) / width, h - (bottom + top) / height), facecolor=PANEL)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def save(self):
        PICTURES.mkdir(exist_ok=True)
        file = PICTURES / (self.title.lower().replace(" ", "-") + ".png")
        self.figure.savefig(file, facecolor=BACKGROUND)
        print(file.relative_to(DEPLOY.parent))


def timeseries(axes, panel, lines, start):
    defaults = panel["fieldConfig"]["defaults"]
    unit, custom = defaults["unit"], defaults["custom"]
    drawn = []
    for target, found in zip(panel["targets"], lines):
        for line in found:
            points = [(float(at) - start, float(value)) for at, value in line["values"]]
            drawn.append((legend(target, line["metric"]), *zip(*points)))
    drawn.sort(key=lambda line: line[0])
    if custom["stacking"]["mode"] == "normal" and drawn:
        every = sorted(set.union(*(set(times) for _, times, _ in drawn)))
        values = [[dict(zip(times, numbers)).get(at, 0) for at in every] for _, times, numbers in drawn]
        axes.stackplot(every, values, labels=[name for name, _, _ in drawn], colors=COLORS, alpha=0.6)
    else:
        for at, (name, times, numbers) in enumerate(drawn):
            color = COLORS[at % len(COLORS)]
            axes.plot(times, numbers, color=color, linewidth=1.1, label=name)
            if "scaleDistribution" not in custom:
                axes.fill_between(times, numbers, color=color, alpha=0.08, linewidth=0)
    if "scaleDistribution" in custom:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        bottom = min([0, *(number for *_, numbers in drawn for number in numbers)])
        top = max([0, *(number for *_, numbers in drawn for number in numbers)]) or 1
        axes.set_ylim(bottom, axes.get_ylim()[1] if drawn and axes.get_ylim()[1] > top else top * 1.05)
        binary = unit in ("bytes", "Bps")
        axes.yaxis.set_major_locator(MultipleLocator(2 ** round(math.log2((top - bottom) / 4))) if binary else MaxNLocator(4))
    if "thresholdsStyle" in custom:
        limit = defaults["thresholds"]["steps"][-1]["value"]
        if limit < 4 * axes.get_ylim()[1]:
            axes.axhline(limit, color=NAMED["red"], linestyle="--", linewidth=0.9)
    axes.grid(color=LINE, linewidth=0.6)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{int(value) // 60}:{int(value) % 60:02}"))
    axes.tick_params(colors=FAINT, labelsize=6.5, length=0)
    if drawn:
        axes.legend(loc="upper left", bbox_to_anchor=(-0.9 / panel["gridPos"]["w"], -0.13), ncols=2 + panel["gridPos"]["w"] // 3 - (len(max((name for name, *_ in drawn), key=len)) > 12) * 2, fontsize=6, frameon=False, labelcolor=TEXT, handlelength=1, columnspacing=1, borderaxespad=0)
    else:
        axes.set_xticks([]), axes.set_yticks([])
        axes.text(0.5, 0.5, "No data", color=FAINT, ha="center", transform=axes.transAxes)


def stat(axes, panel, lines):
    defaults = panel["fieldConfig"]["defaults"]
    axes.set_xticks([]), axes.set_yticks([])
    if not lines[0]:
        axes.text(0.5, 0.5, defaults["noValue"], color=FAINT, fontsize=20, ha="center", va="center", transform=axes.transAxes)
        return
    times, values = zip(*((float(at), float(value)) for at, value in lines[0][0]["values"]))
    color = color_for(values[-1], defaults["thresholds"])
    axes.fill_between(times, values, color=color, alpha=0.18, linewidth=0)
    axes.set_ylim(0, 3 * max(*values, 1e-9))
    axes.text(0.5, 0.55, shown(values[-1], defaults["unit"]), color=color, fontsize=20, weight="bold", ha="center", va="center", transform=axes.transAxes)


def table(axes, panel, lines):
    axes.axis("off")
    overrides = {override["matcher"]["options"]: {item["id"]: item["value"] for item in override["properties"]} for override in panel["fieldConfig"]["overrides"]}
    rename = next(each for each in panel["transformations"] if each["id"] == "organize")["options"]["renameByName"]
    columns = [rename[f"Value #{target['refId']}"] for target in panel["targets"]]
    values = {}
    for column, found in zip(columns, lines):
        for line in found:
            values.setdefault((line["metric"].get("job", ""), line["metric"].get("instance", "")), {})[column] = float(line["values"][-1][1])
    widths = [0.0, 0.12, 0.24] + [0.24 + (at + 1) * 0.76 / len(columns) for at in range(len(columns))]
    for place, name in zip(widths, ["Service", "Instance", *columns]):
        axes.text(place + 0.005, 0.97, name, color="#6e9fff", fontsize=8, va="top", weight="bold", transform=axes.transAxes)
    for at, ((job, instance), row) in enumerate(sorted(values.items(), key=lambda item: -item[1].get(columns[0], 0))[:9]):
        y = 0.85 - at * 0.1
        axes.text(0.005, y, job, color=TEXT, fontsize=8, va="top", transform=axes.transAxes)
        axes.text(0.125, y, instance, color=TEXT, fontsize=8, va="top", transform=axes.transAxes)
        for place, column in zip(widths[2:], columns):
            style = overrides[column]
            value = row.get(column)
            color = FAINT if value is None else color_for(value, style["thresholds"])
            axes.text(place + 0.005, y, shown(value, style["unit"]), color=color, fontsize=8, va="top", transform=axes.transAxes)


def draw(engine, start, end):
    """Draws every open row of the dashboard over that time."""
    window = {"window": "8s", "time_range": f"{int(end - start)}s"}
    content = json.loads(DASHBOARD.read_text())["panels"]
    rows = [at for at, panel in enumerate(content) if panel["type"] == "row" and not panel["collapsed"]]
    for at, until in zip(rows, [*rows[1:], next(at for at, panel in enumerate(content) if panel.get("collapsed"))]):
        row = Row(content[at]["title"], content[at + 1 : until])
        for panel in row.panels:
            lines = [engine.over(filled_in(target["expr"], **window), start, end) for target in panel["targets"]]
            axes = row.box(panel)
            {"timeseries": lambda: timeseries(axes, panel, lines, start), "stat": lambda: stat(axes, panel, lines), "table": lambda: table(axes, panel, lines)}[panel["type"]]()
        row.save()


def main():
    seconds = int(sys.argv[1])
    if not OTELCOL.exists():
        sys.exit(f"no Collector at {OTELCOL}; set OTELCOL")
    program = build()
    with tempfile.TemporaryDirectory() as folder, stack() as (engine, grpc, _):
        with demo(program, seconds + 60, grpc, f"{folder}/demo.log"):
            start = time.time() + 3
            time.sleep(seconds + 3)
            draw(engine, start, time.time() - 1)


if __name__ == "__main__":
    main()
