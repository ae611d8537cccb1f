#!/usr/bin/env python3
"""The dashboard "Rust runtime" as rows of panels. `./dashboard.py` writes dashboards/rust-runtime.json, `./dashboard.py --check`
fails if that file is not what this one says.

In a query, `$S` stands for the selected services and instances, `$W` for the window of a rate, and `by instance` for what tells two
processes apart. A panel whose lines are instances or names shows the ten that were highest in the time range, so that it is as legible
with a hundred instances as with one.
"""

import json
import pathlib
import sys

OUT = pathlib.Path(__file__).parent / "dashboards" / "rust-runtime.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RED, AMBER, GREEN = "red", "orange", "green"


def promql(query):
    return (
        query.replace("$S", 'job=~"$service", instance=~"$instance"')
        .replace("$W", "$__rate_interval")
        .replace("by instance", "by (job, instance)")
        .replace("on instance", "on (job, instance)")
    )


def top(query, labels="job, instance"):
    """Those that were highest in the whole time range: chosen once, so that no line comes and goes."""
    return f"{query} and on ({labels}) topk(10, max_over_time(({query})[$__range:$__interval] @ end()))"


def per_instance(query, legend="{{instance}}"):
    return [(top(query), legend)]


def per_task(query, legend="{{rust_task_name}}"):
    return [(top(query, "rust_task_name"), legend)]


def quantile(q, histogram, by=""):
    return f"histogram_quantile({q}, sum by (le{by}) (rate({histogram}_bucket{{$S}}[$W])))"


# What the worst instance does, as one number each: the stats of the first row and the columns of the table.
CPU = "sum by instance (rate(process_cpu_time_seconds_total{$S}[$W])) / on instance rust_cpu_count{$S}"
MEMORY = "process_memory_usage_bytes{$S} / on instance rust_memory_limit_bytes{$S}"
BUSY = "sum by instance (rate(tokio_worker_busy_time_seconds_total{$S}[$W])) / on instance sum by instance (tokio_worker_count{$S})"
DELAY = quantile(0.99, "tokio_schedule_delay_seconds", ", job, instance")
STALLED = "sum by instance (rate(tokio_worker_stall_time_seconds_total{$S}[$W]))"
TASKS = "sum by instance (tokio_task_count{$S})"
DESCRIPTORS = "process_unix_file_descriptor_count{$S} / on instance rust_file_descriptor_limit{$S}"

SHARE = [(None, GREEN), (0.8, AMBER), (0.9, RED)]


def steps(thresholds):
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in thresholds]}


def panel(kind, title, unit, width, height, queries, description, options, defaults=None, **rest):
    targets = [
        {"refId": chr(ord("A") + at), "datasource": SOURCE, "editorMode": "code", "expr": promql(query), "legendFormat": legend, "range": True}
        for at, (query, legend) in enumerate(queries)
    ]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"h": height, "w": width, "x": 0, "y": 0},
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": unit, **(defaults or {})}, "overrides": []},
        "options": options,
        **rest,
    }


def stat(title, unit, query, thresholds, description):
    """One number, coloured."""
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
    """Lines over time. `limit`: where a dashed line says "too much". `log`: where what matters spans decades."""
    custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 40 if stack else 8, "showPoints": "never", "spanNulls": False}
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
    table["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"job": "Service", "instance": "Instance", **names}}},
    ]
    table["options"]["sortBy"] = [{"displayName": columns[0][0], "desc": True}]
    return table


OVERVIEW = [
    stat("Instances", "none", "count(process_uptime_seconds{$S})", [(None, GREEN)],
         "Processes that reported in the last five minutes. Fewer than you run: see the alert RustInstanceSilent; more: an old version is still up."),
    stat("CPU, busiest", "percentunit", f"max({CPU})", SHARE,
         "The busiest instance's share of the CPUs that it may use. Near 100 %: look at Busy by name for who it is, and at Throttled for a quota that is too small."),
    stat("Memory, fullest", "percentunit", f"max({MEMORY})", SHARE,
         "The fullest instance's resident set as a share of its cgroup's limit. At 100 % the kernel kills it: find out in the row Allocator whether it leaks, before you raise the limit. – where no limit is set."),
    stat("Tasks", "short", "sum(tokio_task_count{$S})", [(None, GREEN)],
         "Tokio tasks alive. It should go up and down with the load; if it only goes up, Alive by name says which ones never end."),
    stat("Delay p99, worst", "s", f"max({DELAY})", [(None, GREEN), (0.01, AMBER), (0.1, RED)],
         "How long a task that could run waited for a worker, on the worst instance. Each await of a request pays it. Above 10 ms: see Scheduler for whether the workers are full (busy) or blocked (stalls)."),
    stat("Stalls, last 5 min", "short", "sum(increase(tokio_worker_stalls_total{$S}[5m]))", [(None, GREEN), (1, RED)],
         "Times that a worker made no progress for 100 ms. None is right: something blocks inside a task. Slow polls by name says which one; move it to spawn_blocking."),
    lines("CPU by instance", "percentunit", per_instance(CPU),
          "Share of the CPUs that the process may use. One far above the others: unequal load or a task that spins. All of them up: more load or a slower version.", limit=0.9),
    lines("Resident memory by instance", "bytes", per_instance("process_memory_usage_bytes{$S}"),
          "What the kernel charges the process for. Up and never down is a leak or fragmentation: the first panel of the row Allocator tells which."),
    lines("Tasks by instance", "short", per_instance(TASKS),
          "Tokio tasks alive. One instance that climbs alone leaks tasks, or its clients do not hang up."),
    signals("Signals, one row an instance", [
        ("CPU", CPU, "percentunit", SHARE),
        ("Memory", MEMORY, "percentunit", SHARE),
        ("Busy", BUSY, "percentunit", SHARE),
        ("Delay p99", DELAY, "s", [(None, GREEN), (0.01, AMBER), (0.1, RED)]),
        ("Workers stalled", STALLED, "short", [(None, GREEN), (0.01, AMBER), (0.5, RED)]),
        ("Descriptors", DESCRIPTORS, "percentunit", SHARE),
        ("Tasks", TASKS, "short", [(None, "text")]),
        ("Up for", "max by instance (process_uptime_seconds{$S})", "s", [(None, "text")]),
    ], "The state of each instance now. Sort by a column to find the one that is not like the others, then choose it above as Instance."),
]

ALLOCATOR = [
    lines("Leak or fragmentation?", "bytes", [
        ("sum(rust_memory_used_bytes{$S})", "used by the program"),
        ("sum(jemalloc_memory_active_bytes{$S}) or sum(mimalloc_memory_committed_bytes{$S}) or (sum(glibc_memory_arena_bytes{$S}) + sum(glibc_memory_mapped_bytes{$S}))", "held by the allocator"),
        ("sum(process_memory_usage_bytes{$S})", "resident"),
        ("sum(rust_memory_limit_bytes{$S})", "limit"),
    ], "Used and resident climb together: the program leaks; Live allocations and Alive by name say where. Resident climbs alone: the allocator is fragmented or holds back freed memory; see its own figures, and its settings for giving back (decay, purge). Held far below resident: memory that is not the heap's (stacks, mapped files, C libraries).", 12),
    lines("The allocator's own figures", "bytes", [
        (f"sum({name}_bytes{{$S}})", name.replace("_memory", ""))
        for name in [f"jemalloc_memory_{what}" for what in ("allocated", "active", "resident", "mapped", "retained", "metadata")]
        + [f"mimalloc_memory_{what}" for what in ("committed", "reserved")]
        + [f"glibc_memory_{what}" for what in ("arena", "mapped", "used", "free")]
    ], "As jemalloc, mimalloc or glibc counts itself: whichever the process has. Active or arena far above allocated or used is fragmentation; retained is address space and costs nothing.", 12),
    lines("Allocated and freed", "Bps", [
        ("sum(rate(rust_memory_allocated_bytes_total{$S}[$W]))", "allocated"),
        ("sum(rate(rust_memory_deallocated_bytes_total{$S}[$W]))", "freed"),
    ], "Bytes a second. The two should lie on each other; a lasting gap is a leak of that many bytes a second. Both up for the same load: a new version copies more."),
    lines("Calls of the allocator", "ops", [
        (f"sum(rate(rust_memory_{call}_total{{$S}}[$W]))", call) for call in ("allocations", "deallocations", "reallocations")
    ], "Each costs 20 to 100 ns. Up for the same load: a hot path allocates that did not. Many reallocations: vectors and strings that grow without with_capacity."),
    lines("Live allocations", "short", per_instance("rust_memory_allocation_count{$S}"),
          "Allocations that were not given back yet. Climbs with used memory: many small things are kept (a map without eviction, tasks); used climbs alone: few large ones (a buffer that only grows)."),
    lines("Used by instance", "bytes", per_instance("rust_memory_used_bytes{$S}"),
          "What the program has allocated and not freed. A floor that rises from valley to valley is a leak, whatever the peaks do.", width=6),
    lines("Highest used since start", "bytes", per_instance("rust_memory_peak_bytes{$S}"),
          "A step is one burst, to the byte, even if it fell between two exports: look at what arrived then. Size limits by this and not by the average.", width=6),
    lines("Resident for each used byte", "short", per_instance("process_memory_usage_bytes{$S} / on instance rust_memory_used_bytes{$S}"),
          "1 to 1.5 is usual for a process that uses more than some 50 MB. Rising while used is flat is fragmentation: try another allocator or its decay settings.", width=6),
    lines("Failed allocations", "short", per_instance("sum by instance (increase(rust_memory_allocation_failures_total{$S}[$W]))"),
          "The allocator had no memory to give; as a rule the process aborts right after. Any is too many: look for one huge request (a length read from the network) or a limit on address space.", width=6),
]

SCHEDULER = [
    lines("Busy workers", "percentunit", [(top(
        "sum by (job, instance, tokio_runtime_name) (rate(tokio_worker_busy_time_seconds_total{$S}[$W]))"
        " / on (job, instance, tokio_runtime_name) sum by (job, instance, tokio_runtime_name) (tokio_worker_count{$S})",
        "job, instance, tokio_runtime_name"), "{{instance}} {{tokio_runtime_name}}")],
        "Share of the workers' time spent in tasks. Above 0.8 the delay rises steeply: add instances or workers. Low while things are slow: the workers wait or are blocked, see Stalled workers. It moves when a poll ends, so a long poll shows as a dip and then a peak.", limit=0.8),
    lines("Schedule delay", "s", [
        (quantile(0.5, "tokio_schedule_delay_seconds"), "p50"),
        (quantile(0.99, "tokio_schedule_delay_seconds"), "p99"),
        (quantile(1, "tokio_schedule_delay_seconds"), "max"),
    ], "From waking a task until it ran, over all selected instances; max is the upper bound of the highest bucket that was hit. p50 up: too few workers for the load. p99 or max up alone: now and then something blocks a worker.", log=True),
    lines("Schedule delay p99 by instance", "s", per_instance(DELAY),
          "One instance above the others: a noisy neighbour, a throttled cgroup or unequal load. All of them: the program itself.", limit=0.1),
    lines("Stalled workers", "short", per_instance(STALLED),
          "How many workers were stuck for 100 ms or longer, on average; it grows while a stall lasts. At the number of workers the process does nothing at all: take a stack dump now, then look at Slow polls by name."),
    lines("Stalls", "short", per_instance("sum by instance (increase(tokio_worker_stalls_total{$S}[$W]))"),
          "How many stalls began. Many short ones: a computation in async code; few long ones: blocking I/O, a lock held across work, a DNS look-up."),
    lines("Queue", "short", [(top("sum by (job, instance, tokio_queue_type) (tokio_queue_length{$S})", "job, instance, tokio_queue_type"), "{{instance}} {{tokio_queue_type}}")],
          "Tasks that are ready and wait for a worker. Above zero for longer than a burst: not enough workers, or they are blocked."),
    lines("Workers", "short", [("sum by (tokio_worker_state) (tokio_worker_count{$S})", "{{tokio_worker_state}} workers")],
          "All active all the time: saturated. Mostly parked: more workers than the load needs, which costs little.", stack=True),
    lines("Parks", "ops", per_instance("sum by instance (rate(tokio_worker_parks_total{$S}[$W]))"),
          "Times a second that workers went to sleep. None while there is work: saturated or blocked. Very many with little work: something wakes tasks for nothing, such as a short timer."),
    lines("Tasks of each runtime", "short", [(top("sum by (job, instance, tokio_runtime_name) (tokio_task_count{$S})", "job, instance, tokio_runtime_name"), "{{instance}} {{tokio_runtime_name}}")],
          "Tasks alive, for processes with more than one runtime. Climbs: see Alive by name."),
]

TASKS_BY_NAME = [
    lines("Alive by name", "short", per_task("sum by (rust_task_name) (rust_task_count{$S})"),
          "Tasks with this name that have not ended. A name that only climbs leaks: it waits for something that never comes (a channel nobody sends to, a connection without time-out).", 12),
    lines("Busy by name", "percentunit", per_task("sum by (rust_task_name) (rate(rust_task_busy_time_seconds_total{$S}[$W]))"),
          "Workers that are kept busy by tasks with this name (100 % is one worker). The first is where CPU time goes.", 12),
    lines("Allocated by name", "Bps", per_task("sum by (rust_task_name) (rate(rust_task_memory_allocated_bytes_total{$S}[$W]))"),
          "Bytes a second allocated inside polls of this name. High but steady is churn and costs CPU; what it keeps shows in Used by instance."),
    lines("Allocations by name", "ops", per_task("sum by (rust_task_name) (rate(rust_task_memory_allocations_total{$S}[$W]))"),
          "Allocator calls a second inside polls of this name. Many small ones: reuse buffers, collect with_capacity."),
    lines("Mean poll by name", "s", per_task("sum by (rust_task_name) (rate(rust_task_busy_time_seconds_total{$S}[$W])) / on (rust_task_name) sum by (rust_task_name) (rate(rust_task_polls_total{$S}[$W]))"),
          "Time that one poll holds a worker. Above 1 ms all other tasks feel it: yield in between, or spawn_blocking.", log=True),
    lines("Slow polls by name", "short", per_task("sum by (rust_task_name) (increase(rust_task_slow_polls_total{$S}[$W]))"),
          "Polls that held a worker for 10 ms or longer. This is the name to open first when Stalled workers moves.", width=6),
    lines("Polls by name", "ops", per_task("sum by (rust_task_name) (rate(rust_task_polls_total{$S}[$W]))"),
          "Polls a second. Many with little busy time: woken for nothing, for example by a select over many futures or a timer that is too fast.", width=6),
    lines("Spawned less ended", "ops", per_task(
        "sum by (rust_task_name) (rate(rust_task_spawned_total{$S}[$W])) - on (rust_task_name) sum by (rust_task_name) (rate(rust_task_ended_total{$S}[$W]))"),
        "How fast the number alive changes. Zero on average; above it for long: a leak, growing at this rate.", width=6),
    lines("Ended by outcome", "ops", [(top("sum by (rust_task_name, rust_task_outcome) (rate(rust_task_ended_total{$S}[$W])) > 0", "rust_task_name, rust_task_outcome"), "{{rust_task_name}} {{rust_task_outcome}}")],
          "panicked: read the log, each one is a bug and its work was lost. cancelled: dropped before the end, by a time-out or select; many mean that work is thrown away.", width=6),
]

PROCESS = [
    lines("File descriptors", "percentunit", per_instance(DESCRIPTORS),
          "Share of the soft limit (RLIMIT_NOFILE). At 100 % accept and open fail. Climbs: connections or files that are not closed; see whether tasks climb with it.", limit=0.8, width=6),
    lines("Descriptors open", "short", per_instance("process_unix_file_descriptor_count{$S}"),
          "The same in numbers. Steps with the load are right; a climb without load is a leak. A limit of 1024 is too low for most servers.", width=6),
    lines("Threads", "short", per_instance("process_thread_count{$S}"),
          "Workers, blocking pool and all others. Up to the 512 of the blocking pool: blocking work arrives faster than it ends.", width=6),
    lines("Up for", "s", per_instance("process_uptime_seconds{$S}"),
          "A fall to zero is a restart. Teeth of a saw: it is killed again and again; compare with Memory, fullest.", width=6),
    lines("CPU by mode", "percentunit", [("sum by (cpu_mode) (rate(process_cpu_time_seconds_total{$S}[$W]))", "{{cpu_mode}}")],
          "100 % is one CPU. system above a third: many small reads and writes, page faults or lock contention; see Page faults and Context switches.", stack=True, width=6),
    lines("CPUs to use", "short", [
        ("sum(rust_cpu_count{$S})", "allowed"),
        ("sum(rate(process_cpu_time_seconds_total{$S}[$W]))", "used"),
    ], "By affinity and cgroup quota. Used touches allowed: add CPUs or instances. A drop of allowed: someone changed the limit.", width=6),
    lines("Throttled", "percentunit", per_instance("rate(rust_cpu_throttled_time_seconds_total{$S}[$W])"),
          "Share of time that the cgroup's quota kept the process from running: delay with nothing to see inside the program. Above a few per cent: raise the quota, or run fewer workers than the quota allows.", width=6),
    lines("Throttled periods", "ops", per_instance("rate(rust_cpu_throttles_total{$S}[$W])"),
          "Periods (100 ms as a rule, so 10 a second at most) in which the quota ran out. Some with low CPU on average: bursts; a longer period or more quota helps.", width=6),
    lines("Page faults", "ops", [("sum by (system_paging_fault_type) (rate(process_paging_faults_total{$S}[$W]))", "{{system_paging_fault_type}}")],
          "major: read from disk; any steady rate means that the machine is short of memory. minor: fresh pages; many mean an allocator that gives back and takes again."),
    lines("Context switches", "ops", [("sum by (process_context_switch_type) (rate(process_context_switches_total{$S}[$W]))", "{{process_context_switch_type}}")],
          "voluntary: it waited; usual. involuntary: others wanted the CPU; up means more runnable threads than CPUs."),
    lines("Virtual memory", "bytes", per_instance("process_memory_virtual_bytes{$S}"),
          "Address space. Costs nothing by itself; a steady climb beside flat resident memory is a leak of mappings or threads."),
]

ON_REQUEST = [
    lines("Blocking pool", "short", [("sum by (tokio_thread_state) (tokio_blocking_thread_count{$S})", "threads {{tokio_thread_state}}"), ("sum(tokio_blocking_queue_length{$S})", "waiting")],
          "Needs tokio_unstable. Waiting above zero: all 512 threads are taken; find what blocks so long, or bound what is sent there."),
    lines("Poll duration", "s", [(quantile(q, "tokio_task_poll_duration_seconds"), f"p{100 * q:g}") for q in (0.5, 0.99)],
          "Needs tokio_unstable and a runtime built with the poll-time histogram. p99 above 1 ms: tasks compute or block between awaits."),
    lines("Schedule duration", "s", [(quantile(q, "tokio_schedule_duration_seconds"), f"p{100 * q:g}") for q in (0.5, 0.99)],
          "Needs tokio_unstable and the schedule-latency histogram. Every task's wait, where Schedule delay has a probe's."),
    lines("Spawned and polled", "ops", [("sum(rate(tokio_task_spawned_total{$S}[$W]))", "spawned"), ("sum(rate(tokio_task_polls_total{$S}[$W]))", "polls"), ("sum(rate(tokio_task_forced_yields_total{$S}[$W]))", "forced yields")],
          "Needs tokio_unstable. Forced yields: tasks that never wait, held back by Tokio's budget."),
    lines("Scheduled from", "ops", [("sum by (tokio_schedule_origin) (rate(tokio_task_schedules_total{$S}[$W]))", "{{tokio_schedule_origin}}")],
          "Needs tokio_unstable. Remote is dearer than local: work arrives from outside the runtime."),
    lines("Balance between workers", "ops", [(f"sum(rate(tokio_{what}_total{{$S}}[$W]))", legend) for what, legend in (
        ("worker_steals", "tasks stolen"), ("worker_steal_operations", "steals"), ("worker_noops", "woken for nothing"), ("queue_overflows", "overflows"))],
          "Needs tokio_unstable. Overflows: one task spawns bursts. Woken for nothing: many short tasks."),
    lines("I/O driver", "short", [("sum(tokio_io_driver_fd_count{$S})", "registered"), ("sum(rate(tokio_io_driver_ready_events_total{$S}[$W]))", "events a second")],
          "Needs tokio_unstable. Registered climbs: sockets that are not closed.", width=6),
    lines("Waiting to be polled, by name", "percentunit", per_task("sum by (rust_task_name) (rate(rust_task_scheduled_time_seconds_total{$S}[$W]))"),
          "On request. Tasks of this name that were ready and waited, on average. High: they are the victims; Busy by name has the culprits.", width=6),
    lines("Allocations by size", "ops", [("sum by (rust_memory_size_class) (rate(rust_memory_allocations_total{$S, rust_memory_size_class!=\"\"}[$W]))", "up to {{rust_memory_size_class}} B")],
          "On request. Which sizes the load asks for. Many tiny ones: small strings or boxes that could be inline.", width=6),
    lines("Disk", "Bps", [("sum by (disk_io_direction) (rate(process_disk_io_bytes_total{$S}[$W]))", "{{disk_io_direction}}")],
          "On request. What reached the block layer, not the page cache. Writes that nobody planned: logs, or memory being swapped.", width=6),
]

ROWS = [
    ("Overview", OVERVIEW, False),
    ("Allocator", ALLOCATOR, False),
    ("Scheduler", SCHEDULER, False),
    ("Tasks by name", TASKS_BY_NAME, False),
    ("Process", PROCESS, False),
    ("On request, or with tokio_unstable", ON_REQUEST, True),
]


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


def variable(name, label, query):
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 7,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard():
    panels, y = [], 0
    for title, content, collapsed in ROWS:
        row = {"type": "row", "title": title, "collapsed": collapsed, "panels": content if collapsed else [], "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}}
        y = place(content, y + 1)
        panels += [row] if collapsed else [row, *content]
    every = [each for panel in panels for each in (panel, *panel.get("panels", []))]
    for number, each in enumerate(every, 1):
        each["id"] = number
    return {
        "uid": "rust-runtime",
        "title": "Rust runtime",
        "description": "Allocator, Tokio, tasks and process of services that use opentelemetry-instrumentation-runtime.",
        "tags": ["rust", "tokio", "opentelemetry"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-15m", "to": "now"},
        "refresh": "5s",
        "templating": {
            "list": [
                {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "current": {"text": "Rust runtime", "value": "rust-runtime"}},
                variable("service", "Service", "label_values(process_uptime_seconds, job)"),
                variable("instance", "Instance", 'label_values(process_uptime_seconds{job=~"$service"}, instance)'),
            ]
        },
        "panels": panels,
    }


if __name__ == "__main__":
    text = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--check"]:
        if OUT.read_text() != text:
            sys.exit(f"{OUT.name} is not what dashboard.py says: run deploy/grafana/dashboard.py")
    else:
        OUT.write_text(text)
