"""Checks the links from the dashboard of metrics to the flame graphs: panels, variables, types of profiles, data source."""

import json
import re
import sys

from catalogue import DEPLOY, ROOT

DASHBOARDS = DEPLOY / "grafana" / "dashboards"
metrics = json.loads((DASHBOARDS / "rust-runtime.json").read_text())
profiles = json.loads((DASHBOARDS / "rust-profiles.json").read_text())
wrong = []

panels = [each for panel in metrics["panels"] for each in (panel, *panel.get("panels", []))]
links = [(panel, link) for panel in panels for link in panel.get("fieldConfig", {}).get("defaults", {}).get("links", [])]
numbers = {str(panel["id"]) for panel in profiles["panels"]}
variables = {variable["name"] for variable in profiles["templating"]["list"]}
for panel, link in links:
    where, _, query = link["url"].partition("?")
    fields = dict(pair.split("=", 1) for pair in query.split("&") if "=" in pair)
    if where != f"/d/{profiles['uid']}" or fields.pop("viewPanel", None) not in numbers or "${__url_time_range}" not in query:
        wrong.append(f"{panel['title']}: {link['url']} is no flame graph of its time")
    for name, value in fields.items():
        if name.removeprefix("var-") not in variables:
            wrong.append(f"{panel['title']}: there is no variable {name}")
        label = re.fullmatch(r"\$\{__field\.labels\.(\w+)\}", value)
        if label and not all(label[1] in target["expr"] for target in panel["targets"]):
            wrong.append(f"{panel['title']}: its lines have no label {label[1]}")
for words in ("memory", "stall"):
    if not any(words in f"{panel['title']} {panel['targets']}".lower() for panel, _ in links):
        wrong.append(f"no panel about {words} leads to a flame graph")

# The library's own names of the types, as its sources declare them.
sources = "".join((ROOT / "src" / "profile" / f"{name}.rs").read_text() for name in ("heap", "stalls", "cpu"))
known = set(re.findall(r'SampleType::new\("(\w+)", "(\w+)"\)', sources))
for panel in profiles["panels"]:
    for target in panel["targets"]:
        _, name, unit, _, _ = target["profileTypeId"].split(":")
        if (name, unit) not in known:
            wrong.append(f"{panel['title']}: no profile has {name} in {unit}")

source = (DEPLOY / "grafana" / "provisioning" / "datasources" / "pyroscope.yml").read_text()
current = next(variable["current"]["value"] for variable in profiles["templating"]["list"] if variable["type"] == "datasource")
if f"uid: {current}\n" not in source:
    wrong.append(f"no provisioned data source has the id {current}")

if wrong:
    sys.exit("\n".join(wrong))
print(f"{len(links)} panels lead to {len(profiles['panels'])} flame graphs")
