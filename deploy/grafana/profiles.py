"""The dashboard "Rust profiles": a flame graph for each type of profile that the library exports over OTLP."""

import pathlib

PROFILES = pathlib.Path(__file__).parent / "dashboards" / "rust-profiles.json"
SOURCE = {"type": "grafana-pyroscope-datasource", "uid": "${profiles}"}

# The type of value, Pyroscope's name of the profile, title, description. Pyroscope names a profile after the type of its period.
FLAMES = [
    ("inuse_space", "space:inuse_space:bytes:space:bytes", "Memory that stayed",
     "Bytes that each function allocated in this time range and that were not freed when they were sampled. Each profile is the change since the one before. Pyroscope leaves out places that shrank, so that a place that grows and shrinks looks larger than it is; a leak grows in every profile."),
    ("inuse_objects", "space:inuse_objects:count:space:bytes", "Allocations that stayed",
     "The same by number of allocations. Many small ones: a map without eviction, or tasks that never end."),
    ("alloc_space", "space:alloc_space:bytes:space:bytes", "Memory allocated",
     "All bytes that each function allocated in this time range, freed or not. The widest place is where allocations cost the most."),
    ("delay", "stalls:delay:nanoseconds:stalls:count", "Stalled workers",
     "The time for which Tokio's workers stood still in this time range, by what they did. Move a call that blocks to spawn_blocking, and let a long computation yield."),
    ("cpu", "process_cpu:cpu:nanoseconds:cpu:nanoseconds", "CPU time",
     "Where CPU time was used. Empty unless the service was built with cpu_profile_every."),
]
NUMBERS = {kind: number for number, (kind, *_) in enumerate(FLAMES, 1)}

# Variable, title, label in Pyroscope.
SELECTION = [
    ("service", "Service", "service_name"),
    ("instance", "Instance", "service_instance_id"),
    ("task", "Task", "rust_task_name"),
    ("cause", "Cause of the stall", "tokio_stall_cause"),
]


def flame(number, profile, title, description):
    shown = [each for each in SELECTION if each[0] != "cause" or profile.startswith("stalls:")]
    selector = ", ".join(f'{label}=~"${name}"' for name, _, label in shown)
    return {
        "type": "flamegraph",
        "id": number,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"h": 14, "w": 24, "x": 0, "y": 14 * (number - 1)},
        "targets": [{
            "refId": "A",
            "datasource": SOURCE,
            "queryType": "profile",
            "profileTypeId": profile,
            "labelSelector": "{" + selector + "}",
            "groupBy": [],
        }],
        "options": {},
        "fieldConfig": {"defaults": {}, "overrides": []},
    }


def profiles():
    source = {"type": "datasource", "name": "profiles", "label": "Data source", "query": "grafana-pyroscope-datasource", "current": {"text": "Pyroscope", "value": "pyroscope"}}
    # A regular expression. All of them is also what a sample without the label has.
    texts = [{"type": "textbox", "name": name, "label": title, "query": ".*", "current": {"text": ".*", "value": ".*"}} for name, title, _ in SELECTION]
    return {
        "uid": "rust-profiles",
        "title": "Rust profiles",
        "description": "Flame graphs of services that export profiles over OTLP (feature otlp-profiles, experimental).",
        "tags": ["rust", "tokio", "opentelemetry"],
        "schemaVersion": 41,
        "editable": True,
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [source, *texts]},
        "panels": [flame(number, *rest) for number, (_, *rest) in enumerate(FLAMES, 1)],
    }
