#!/usr/bin/env python3
"""Writes the dashboard "Rust runtime" from rows of panels, and the dashboard of profiles (profiles.py).

`./dashboard.py` writes both files in dashboards/. `./dashboard.py --check` fails if a file differs from what this script writes.

In a query, `$S` stands for the selection (service, instance, version, namespace, cluster) and `$W` for the window of a rate. A metric is
first reduced to one value per process (`each`), and only then compared or divided. Promoted resource attributes add labels that this
script cannot know, and two versions of one instance are visible together during a deploy; neither may break a match or count twice.
A panel with a line per instance or per name shows the ten highest of the time range, so it stays legible with hundreds of instances.
"""

import json
import pathlib
import re
import sys

from profiles import NUMBERS, PROFILES, profiles
from parts import AMBER, GREEN, MIN_INTERVAL, RED, SOURCE, lines, place, signals, stat

OUT = pathlib.Path(__file__).parent / "dashboards" / "rust-runtime.json"

# The labels that a selection filters by: variable, its title, label. Change a label here if your backend has another one.
SELECTION = [
    ("cluster", "Cluster", "k8s_cluster_name"),
    ("namespace", "Namespace", "k8s_namespace_name"),
    ("service", "Service", "job"),
    ("version", "Version", "service_version"),
    ("instance", "Instance", "instance"),
]
# The labels that distinguish two processes, as in rules.yml. A label that a backend does not have is empty and does no harm.
PROCESS_LABELS = "deployment_environment_name, k8s_cluster_name, k8s_namespace_name, job, instance, k8s_pod_name, host_name"
# Any of these shows that a process reports, on each platform and with each set of sources.
REPORTS = '{__name__=~"process_uptime_seconds|tokio_worker_count|rust_memory_used_bytes"%s}'

# The attributes of a metric itself, to sum over before the value of a process is taken.
OWN = {
    "process_cpu_time_seconds_total": "cpu_mode",
    "tokio_worker_count": "tokio_runtime_name, tokio_worker_state",
    "tokio_worker_busy_time_seconds_total": "tokio_runtime_name, tokio_worker_index",
    "tokio_worker_stall_time_seconds_total": "tokio_runtime_name, tokio_worker_index, tokio_stall_cause",
    "tokio_worker_stalls_total": "tokio_runtime_name, tokio_worker_index, tokio_stall_cause",
    "tokio_worker_parks_total": "tokio_runtime_name, tokio_worker_index",
    "tokio_task_count": "tokio_runtime_name",
    "tokio_queue_length": "tokio_runtime_name, tokio_queue_type",
    "tokio_blocking_thread_count": "tokio_runtime_name, tokio_thread_state",
    "tokio_blocking_queue_length": "tokio_runtime_name",
    "tokio_io_driver_fd_count": "tokio_runtime_name",
    "rust_task_count": "rust_task_name",
    "rust_task_memory_used_bytes": "rust_task_name",
}


def promql(query):
    selection = ", ".join(f'{label}=~"${name}"' for name, _, label in SELECTION)
    return query.replace("$S", selection).replace("$W", "$__rate_interval")


def each(metric, function="", by=""):
    """One value per process, or per process and the labels `by`."""
    kept = [label.strip() for label in by.split(",") if label]
    summed = [label for label in OWN.get(metric, "").split(", ") if label and label not in kept]
    value = f"{function}({metric}{{$S}}[$W])" if function else f"{metric}{{$S}}"
    if summed:
        value = f"sum without ({', '.join(summed)}) ({value})"
    return f"max by ({', '.join([PROCESS_LABELS, *kept])}) ({value})"


def total(metric, by=""):
    """The sum of a gauge over all processes, where a process counts once."""
    return f"sum{f' by ({by})' if by else ''} ({each(metric, by=by)})"


def rates(metric, by="", function="rate", extra=""):
    """The sum of a counter's rate over all processes."""
    return f"sum{f' by ({by})' if by else ''} ({function}({metric}{{$S{extra}}}[$W]))"


def ratio(above, below):
    """Both sides have exactly the same labels, so that they match one to one."""
    return f"{above} / {below}"


def top(query):
    """The ten that were highest over the whole time range, chosen once, so that no line comes and goes.

    The ranking reads plain ranges and no subquery: the highest value of a gauge, the mean rate of a counter. If the time range holds too few
    samples for that, the values at its end decide.
    """
    gauge = r"(\w+\{\$S[^}]*\})(?!\[)"
    whole = re.sub(gauge, r"max_over_time(\1[$__range] @ end())", query).replace("[$W]", "[$__range] @ end()")
    last = re.sub(gauge, r"\1 @ end()", query).replace("[$W]", "[$W] @ end()")
    return f"({query}) and topk(10, ({whole}) or ({last}))"


def per_instance(query, legend="{{job}} {{instance}}"):
    return [(top(query), legend)]


def per_task(query):
    return [(top(query), "{{rust_task_name}}")]


def quantile(q, histogram, by=""):
    return f"histogram_quantile({q}, sum by (le{', ' + by if by else ''}) (rate({histogram}_bucket{{$S}}[$W])))"


# What the worst instance does, as one number each: the stats of the first row and the columns of the table.
CPU = ratio(each("process_cpu_time_seconds_total", "rate"), each("rust_cpu_count"))
MEMORY = ratio(each("process_memory_usage_bytes"), each("rust_memory_limit_bytes"))
BUSY = ratio(each("tokio_worker_busy_time_seconds_total", "rate"), each("tokio_worker_count"))
DELAY = quantile(0.99, "tokio_schedule_delay_seconds", PROCESS_LABELS)
STALLED = ratio(each("tokio_worker_stall_time_seconds_total", "rate"), each("tokio_worker_count"))
DESCRIPTORS = ratio(each("process_unix_file_descriptor_count"), each("rust_file_descriptor_limit"))
RUNTIME = "tokio_runtime_name"
BY_RUNTIME = "{{job}} {{instance}} {{tokio_runtime_name}}"
BUSY_BY_RUNTIME = ratio(each("tokio_worker_busy_time_seconds_total", "rate", RUNTIME), each("tokio_worker_count", by=RUNTIME))
STALLED_BY_RUNTIME = ratio(each("tokio_worker_stall_time_seconds_total", "rate", RUNTIME), each("tokio_worker_count", by=RUNTIME))

SHARE = [(None, GREEN), (0.8, AMBER), (0.9, RED)]
STALL_SHARE = [(None, GREEN), (0.01, AMBER), (0.2, RED)]


OVERVIEW = [
    stat("Instances", "none", f"count(group by ({PROCESS_LABELS}) ({REPORTS % ', $S'}))", [(None, GREEN)],
         "Processes that reported in the last five minutes. Fewer than you run: see the alert RustInstanceSilent. More: an old version still runs."),
    stat("CPU, busiest", "percentunit", f"max({CPU})", SHARE,
         "The share of its CPUs that the busiest instance uses. Near 100 %: Busy by name shows what uses them, and Throttled shows a quota that is too small."),
    stat("Memory, fullest", "percentunit", f"max({MEMORY})", SHARE,
         "The resident set of the fullest instance as a share of its cgroup's limit. At 100 % the kernel kills the process. Before you raise the limit, see in the row Allocator whether it leaks. – means that no limit is set."),
    stat("Tasks", "short", total("tokio_task_count"), [(None, GREEN)],
         "Live Tokio tasks. The number follows the load. If it only rises, Alive by name shows which tasks never end."),
    stat("Delay p99, worst", "s", f"max({DELAY})", [(None, GREEN), (0.01, AMBER), (0.1, RED)],
         "How long a ready task waits for a worker, on the worst instance. Each await of a request pays for it. Above 10 ms: the row Scheduler shows whether the workers are full (busy) or stand still (stalls)."),
    stat("Stalls, last 5 min", "short", "sum(increase(tokio_worker_stalls_total{$S}[5m]))", [(None, GREEN), (1, RED)],
         "How often a worker made no progress for 100 ms or longer. There should be none. Stalls by cause shows why. For blocked and running, Slow polls by name shows the task; move its work to spawn_blocking."),
    lines("CPU by instance", "percentunit", per_instance(CPU),
          "The share of its CPUs that a process uses. One instance far above the others: uneven load, or a task that spins. All of them up: more load, or a slower version.", limit=0.9),
    lines("Resident memory by instance", "bytes", per_instance(each("process_memory_usage_bytes")),
          "The memory that the kernel charges to the process. Up and never down is a leak or fragmentation. The first panel of the row Allocator shows which."),
    lines("Tasks by instance", "short", per_instance(each("tokio_task_count")),
          "Live Tokio tasks. If one instance climbs alone, it leaks tasks, or its clients do not hang up."),
    signals("Signals, one row an instance", [
        ("CPU", CPU, "percentunit", SHARE),
        ("Memory", MEMORY, "percentunit", SHARE),
        ("Busy", BUSY, "percentunit", SHARE),
        ("Delay p99", DELAY, "s", [(None, GREEN), (0.01, AMBER), (0.1, RED)]),
        ("Workers stalled", STALLED, "percentunit", STALL_SHARE),
        ("Descriptors", DESCRIPTORS, "percentunit", SHARE),
        ("Tasks", each("tokio_task_count"), "short", [(None, "text")]),
        ("Up for", each("process_uptime_seconds"), "s", [(None, "text")]),
    ], "The present state of each instance. Sort by a column to find the instance that differs from the others, then select it above."),
    lines("Instances by version", "short", [(f"count by (job, service_version) (group by ({PROCESS_LABELS}, service_version) ({REPORTS % ', $S'}))", "{{job}} {{service_version}}")],
          "Processes that report, by service and version. A deploy shows as one version that replaces another. Both for long: the deploy is stuck.", 12, stack=True),
    lines("Starts in 10 minutes", "short", [(
        f"sum by (job) (max by ({PROCESS_LABELS}, service_version) (resets(process_uptime_seconds{{$S}}[10m]) > 0 or (min_over_time(process_uptime_seconds{{$S}}[10m]) < bool 600)))", "{{job}}")],
          "Processes that started in the last ten minutes, whether they kept their instance id or got a new one. A deploy starts each instance once. Starts without a deploy, again and again: the processes crash or get killed. Compare with Memory, fullest.", 12),
]

ALLOCATOR = [
    lines("Leak or fragmentation?", "bytes", [
        (total("rust_memory_used_bytes"), "used by the program"),
        (f"{total('jemalloc_memory_active_bytes')} or {total('mimalloc_memory_committed_bytes')} or ({total('glibc_memory_arena_bytes')} + {total('glibc_memory_mapped_bytes')})", "held by the allocator"),
        (total("process_memory_usage_bytes"), "resident"),
        (total("rust_memory_limit_bytes"), "limit"),
    ], "Used and resident climb together: the program leaks. Live allocations and Alive by name show where. Only resident climbs: the allocator is fragmented or keeps freed memory; see its own figures and its settings for returning memory (decay, purge). Held far below resident: memory outside the heap (stacks, mapped files, C libraries).", 12),
    lines("The allocator's own figures", "bytes", [
        (total(f"{name}_bytes"), name.replace("_memory", ""))
        for name in [f"jemalloc_memory_{what}" for what in ("allocated", "active", "resident", "mapped", "retained", "metadata")]
        + [f"mimalloc_memory_{what}" for what in ("committed", "reserved")]
        + [f"glibc_memory_{what}" for what in ("arena", "mapped", "used", "free")]
    ], "As jemalloc, mimalloc or glibc counts itself. Active or arena far above allocated or used is fragmentation. Retained is address space and costs nothing.", 12),
    lines("Allocated and freed", "Bps", [
        (rates("rust_memory_allocated_bytes_total"), "allocated"),
        (rates("rust_memory_deallocated_bytes_total"), "freed"),
    ], "Bytes a second. The two lines should coincide. A lasting gap is a leak of that many bytes a second. Both up under the same load: a new version copies more."),
    lines("Calls of the allocator", "ops", [
        (rates(f"rust_memory_{call}_total"), call) for call in ("allocations", "deallocations", "reallocations")
    ], "Each call costs 20 to 100 ns. Up under the same load: a hot path allocates more than before. Many reallocations: vectors and strings that grow without with_capacity."),
    lines("Live allocations", "short", per_instance(each("rust_memory_allocation_count")),
          "Allocations that are not freed yet. They climb with used memory: the program keeps many small things (a map without eviction, tasks). Only used climbs: it keeps few large ones (a buffer that only grows)."),
    lines("Used by instance", "bytes", per_instance(each("rust_memory_used_bytes")),
          "Bytes that the program has allocated and not freed. A floor that rises from valley to valley is a leak; peaks do not matter.", width=6),
    lines("Highest used since start", "bytes", per_instance(each("rust_memory_peak_bytes")),
          "A step is one burst, to the byte, even between two exports. See what arrived at that moment. Choose limits by this value and not by the average.", width=6),
    lines("Resident for each used byte", "short", per_instance(ratio(each("process_memory_usage_bytes"), each("rust_memory_used_bytes"))),
          "1 to 1.5 is usual for a process that uses more than about 50 MB. Rising while used is flat is fragmentation: try another allocator or its decay settings.", width=6),
    lines("Failed allocations", "short", per_instance(each("rust_memory_allocation_failures_total", "increase")),
          "The allocator had no memory to give. The process usually aborts right after. Even one is too many: look for one huge request (a length read from the network) or a limit on address space.", width=6),
]

SCHEDULER = [
    lines("Busy workers", "percentunit", per_instance(BUSY_BY_RUNTIME, BY_RUNTIME),
          "The share of the workers' time that tasks use. Above 80 % the delay rises steeply: add instances or workers. Low although requests are slow: the workers wait or stand still, see Stalled workers. It moves when a poll ends, so a long poll shows as a dip and then a peak.", limit=0.8),
    lines("Schedule delay", "s", [
        (quantile(0.5, "tokio_schedule_delay_seconds"), "p50"),
        (quantile(0.99, "tokio_schedule_delay_seconds"), "p99"),
        (quantile(1, "tokio_schedule_delay_seconds"), "max"),
    ], "From waking a task until it runs, over all selected instances. Max is the upper bound of the highest bucket with a value. p50 up: too few workers for the load. Only p99 or max up: something blocks a worker now and then.", log=True),
    lines("Schedule delay p99 by instance", "s", per_instance(DELAY),
          "One instance above the others: a noisy neighbour, a throttled cgroup or uneven load. All of them: the program itself.", limit=0.1),
    lines("Stalled workers", "percentunit", per_instance(STALLED_BY_RUNTIME, BY_RUNTIME),
          "The share of a runtime's workers that made no progress for 100 ms or longer, on average. It grows while a stall lasts. At 100 % the runtime does nothing at all: save /debug/pprof/stalls and /debug/pprof/threads now, then see Stalls by name.", limit=0.2),
    lines("Stalls by cause", "short", [(rates("tokio_worker_stall_time_seconds_total", "tokio_stall_cause"), "{{tokio_stall_cause}}")],
          "How many workers stand still, by cause. blocked: they wait inside a call (I/O, a lock, sleep); move it to spawn_blocking. running: one poll computes too long; let it yield. starved: the operating system does not run them; this is a shortage of CPU, see Throttled and Context switches.", stack=True),
    lines("Stalls", "short", per_instance(each("tokio_worker_stalls_total", "increase")),
          "How many stalls began. Many short ones: a computation in async code. Few long ones: blocking I/O, a lock held during work, a DNS look-up."),
    lines("Queue", "short", per_instance(each("tokio_queue_length", by="tokio_queue_type"), "{{job}} {{instance}} {{tokio_queue_type}}"),
          "Tasks that are ready and wait for a worker. Above zero for longer than a burst: there are too few workers, or they stand still.", width=6),
    lines("Workers", "short", [(total("tokio_worker_count", "tokio_worker_state"), "{{tokio_worker_state}} workers")],
          "All active all the time: saturated. Mostly parked: more workers than the load needs, which costs little.", stack=True, width=6),
    lines("Parks", "ops", per_instance(each("tokio_worker_parks_total", "rate")),
          "How often workers go to sleep, per second. Never while there is work: saturated or blocked. Very often with little work: something wakes tasks for nothing, such as a short timer.", width=6),
    lines("Tasks of each runtime", "short", per_instance(each("tokio_task_count", by=RUNTIME), BY_RUNTIME),
          "Live tasks of each runtime, for processes with more than one. One climbs: see Alive by name.", width=6),
]

TASKS_BY_NAME = [
    lines("Alive by name", "short", per_task(total("rust_task_count", "rust_task_name")),
          "Tasks with this name that have not ended. A name that only climbs leaks: its tasks wait for something that never comes (a channel without a sender, a connection without a time-out)."),
    lines("Busy by name", "percentunit", per_task(rates("rust_task_busy_time_seconds_total", "rust_task_name")),
          "Workers that tasks with this name keep busy (100 % is one worker). The highest line is where CPU time goes."),
    lines("Memory in use by name", "bytes", per_task(total("rust_task_memory_used_bytes", "rust_task_name")),
          "Memory in use that polls of this name allocated, estimated from the heap profile's samples; empty while no heap profile runs. A name that only climbs keeps what it allocates: take a heap profile to see where."),
    lines("Allocated by name", "Bps", per_task(rates("rust_task_memory_allocated_bytes_total", "rust_task_name")),
          "Bytes a second that polls of this name allocate. High but steady is churn and costs CPU. Memory that stays shows in Memory in use by name.", width=6),
    lines("Allocations by name", "ops", per_task(rates("rust_task_memory_allocations_total", "rust_task_name")),
          "Allocator calls a second in polls of this name. Many small ones: reuse buffers, or reserve with with_capacity.", width=6),
    lines("Mean poll by name", "s", per_task(f"{rates('rust_task_busy_time_seconds_total', 'rust_task_name')} / {rates('rust_task_polls_total', 'rust_task_name')}"),
          "How long one poll holds a worker. Above 1 ms all other tasks feel it: yield in between, or use spawn_blocking.", log=True, width=6),
    lines("Stalls by name", "short", per_task(rates("rust_task_stalls_total", "rust_task_name", "increase")),
          "Stalls of a worker while it polled a task of this name. A name here is the cause of the stall: find the call or the computation in its code. Stalls in tasks without a name are not in it, see Stalls by cause.", width=6),
    lines("Slow polls by name", "short", per_task(rates("rust_task_slow_polls_total", "rust_task_name", "increase")),
          "Polls that held a worker for 10 ms or longer. Start with the highest name when Stalled workers moves and Stalls by name is empty.", width=6),
    lines("Polls by name", "ops", per_task(rates("rust_task_polls_total", "rust_task_name")),
          "Polls a second. Many with little busy time: the tasks wake for nothing, for example in a select over many futures or with a timer that is too fast.", width=6),
    lines("Spawned minus ended", "ops", per_task(
        f"{rates('rust_task_spawned_total', 'rust_task_name')} - {rates('rust_task_ended_total', 'rust_task_name')}"),
        "How fast the number of live tasks changes. It is zero on average. Above zero for long is a leak that grows at this rate.", width=6),
    lines("Ended by outcome", "ops", [(top(rates("rust_task_ended_total", "rust_task_name, rust_task_outcome") + " > 0"), "{{rust_task_name}} {{rust_task_outcome}}")],
          "panicked: read the log; each panic is a bug, and the task's work is lost. cancelled: dropped before the end, by a time-out or a select. Many of them mean that work is thrown away.", width=6),
]

PROCESS = [
    lines("File descriptors", "percentunit", per_instance(DESCRIPTORS),
          "The share of the soft limit (RLIMIT_NOFILE) in use. At 100 % accept and open fail. A climb: connections or files that are not closed. Do tasks climb too?", limit=0.8, width=6),
    lines("Descriptors open", "short", per_instance(each("process_unix_file_descriptor_count")),
          "The same as a number. Steps that follow the load are fine; a climb without load is a leak. A limit of 1024 is too low for most servers.", width=6),
    lines("Threads", "short", per_instance(each("process_thread_count")),
          "Workers, blocking pool and all other threads. Up to the 512 of the blocking pool: blocking work arrives faster than it ends.", width=6),
    lines("CPU by mode", "percentunit", [(rates("process_cpu_time_seconds_total", "cpu_mode"), "{{cpu_mode}}")],
          "100 % is one CPU. system above a third: many small reads and writes, page faults or lock contention. See Page faults and Context switches.", stack=True, width=6),
    lines("CPUs to use", "short", [
        (total("rust_cpu_count"), "allowed"),
        (rates("process_cpu_time_seconds_total"), "used"),
    ], "By affinity and cgroup quota. Used reaches allowed: add CPUs or instances. Allowed drops: the limit was changed."),
    lines("Throttled", "percentunit", per_instance(each("rust_cpu_throttled_time_seconds_total", "rate")),
          "The share of time that the cgroup's quota stopped the process. It delays everything and leaves no trace inside the program. Above a few per cent: raise the quota, or run no more workers than the quota has CPUs."),
    lines("Throttled periods", "ops", per_instance(each("rust_cpu_throttles_total", "rate")),
          "Periods (usually of 100 ms, so at most 10 a second) in which the quota ran out. Some, with low CPU on average, are bursts: a longer period or more quota helps."),
    lines("Page faults", "ops", [(rates("process_paging_faults_total", "system_paging_fault_type"), "{{system_paging_fault_type}}")],
          "major: read from disk; a steady rate means that the machine is short of memory. minor: fresh pages; many mean an allocator that returns memory and takes it again."),
    lines("Context switches", "ops", [(rates("process_context_switches_total", "process_context_switch_type"), "{{process_context_switch_type}}")],
          "voluntary: the process waited, which is usual. involuntary: others wanted the CPU; more of them means more runnable threads than CPUs."),
    lines("Virtual memory", "bytes", per_instance(each("process_memory_virtual_bytes")),
          "Address space. It costs nothing by itself. A steady climb beside flat resident memory is a leak of mappings or threads."),
]

ON_REQUEST = [
    lines("Blocking pool", "short", [(total("tokio_blocking_thread_count", "tokio_thread_state"), "threads {{tokio_thread_state}}"), (total("tokio_blocking_queue_length"), "waiting")],
          "Needs tokio_unstable. Waiting above zero: all 512 threads are in use. Find what blocks so long, or limit what is sent there."),
    lines("Poll duration", "s", [(quantile(q, "tokio_task_poll_duration_seconds"), f"p{100 * q:g}") for q in (0.5, 0.99)],
          "Needs tokio_unstable and a runtime built with the poll-time histogram. p99 above 1 ms: tasks compute or block between awaits."),
    lines("Schedule duration", "s", [(quantile(q, "tokio_schedule_duration_seconds"), f"p{100 * q:g}") for q in (0.5, 0.99)],
          "Needs tokio_unstable and the schedule-latency histogram. It covers the wait of every task, while Schedule delay measures a probe."),
    lines("Spawned and polled", "ops", [(rates(f"tokio_task_{what}_total"), legend) for what, legend in (("spawned", "spawned"), ("polls", "polls"), ("forced_yields", "forced yields"))],
          "Needs tokio_unstable. Forced yields: tasks that never wait, held back by Tokio's budget."),
    lines("Scheduled from", "ops", [(rates("tokio_task_schedules_total", "tokio_schedule_origin"), "{{tokio_schedule_origin}}")],
          "Needs tokio_unstable. Remote costs more than local: work arrives from outside the runtime."),
    lines("Balance between workers", "ops", [(rates(f"tokio_{what}_total"), legend) for what, legend in (
        ("worker_steals", "tasks stolen"), ("worker_steal_operations", "steals"), ("worker_noops", "woken for nothing"), ("queue_overflows", "overflows"))],
          "Needs tokio_unstable. Overflows: one task spawns bursts. Woken for nothing: many short tasks."),
    lines("I/O driver", "short", [(total("tokio_io_driver_fd_count"), "registered"), (rates("tokio_io_driver_ready_events_total"), "events a second")],
          "Needs tokio_unstable. Registered climbs: sockets that are not closed.", width=6),
    lines("Waiting to be polled, by name", "percentunit", per_task(rates("rust_task_scheduled_time_seconds_total", "rust_task_name")),
          "On request. Tasks of this name that were ready and waited, on average. High: they suffer; Busy by name shows what makes them wait.", width=6),
    lines("Allocations by size", "ops", [(rates("rust_memory_allocations_total", "rust_memory_size_class", extra=', rust_memory_size_class!=""'), "up to {{rust_memory_size_class}} B")],
          "On request. Which sizes the program asks for. Many tiny ones: small strings or boxes that could be inline.", width=6),
    lines("Disk", "Bps", [(rates("process_disk_io_bytes_total", "disk_io_direction"), "{{disk_io_direction}}")],
          "On request. Bytes that reached the block layer and not only the page cache. Unexpected writes: logs, or memory that is swapped out.", width=6),
]

ROWS = [
    ("Overview", OVERVIEW, False),
    ("Allocator", ALLOCATOR, False),
    ("Scheduler", SCHEDULER, False),
    ("Tasks by name", TASKS_BY_NAME, False),
    ("Process", PROCESS, False),
    ("On request, or with tokio_unstable", ON_REQUEST, True),
]


# The panels whose lines lead to a flame graph of that service and time: title, panel of the dashboard of profiles, selection.
# A line of all instances has the service of the selection; others have labels of their own.
OF_SELECTION = "var-service=${service:regex}&var-instance=${instance:regex}"
OF_LINE = "var-service=${__field.labels.job}&var-instance=${__field.labels.instance}"
OF_TASK = f"{OF_SELECTION}&var-task=${{__field.labels.rust_task_name}}"
FLAMES = {
    "Leak or fragmentation?": ("inuse_space", OF_SELECTION),
    "Allocated and freed": ("alloc_space", OF_SELECTION),
    "Live allocations": ("inuse_objects", OF_LINE),
    "Used by instance": ("inuse_space", OF_LINE),
    "Memory in use by name": ("inuse_space", OF_TASK),
    "Allocated by name": ("alloc_space", OF_TASK),
    "Stalled workers": ("delay", OF_LINE),
    "Stalls by cause": ("delay", f"{OF_SELECTION}&var-cause=${{__field.labels.tokio_stall_cause}}"),
    "Stalls": ("delay", OF_LINE),
    "Stalls by name": ("delay", OF_TASK),
}


def link_to_flame(panel):
    """Puts the link to the flame graph on the lines of a panel."""
    if panel["title"] in FLAMES:
        kind, selection = FLAMES[panel["title"]]
        url = f"/d/rust-profiles?viewPanel={NUMBERS[kind]}&{selection}&${{__url_time_range}}"
        panel["fieldConfig"]["defaults"]["links"] = [{"title": "Flame graph", "url": url, "targetBlank": False}]


def variable(at):
    """A list of the values of one label among those selected so far. "All" also matches series without the label."""
    name, title, label = SELECTION[at]
    narrowed = "".join(f', {each}=~"${other}"' for other, _, each in SELECTION[:at])
    return {
        "type": "query",
        "name": name,
        "label": title,
        "datasource": SOURCE,
        "query": {"query": f"label_values({REPORTS % narrowed}, {label})", "refId": name},
        "refresh": 2,
        "sort": 7,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def export_interval():
    """The shortest step of a panel. The default fits OpenTelemetry's default of one export a minute, and overrides the data source."""
    values = [MIN_INTERVAL, "30s", "15s", "10s", "5s"]
    options = [{"text": value, "value": value, "selected": value == MIN_INTERVAL} for value in values]
    return {
        "type": "custom",
        "name": "export_interval",
        "label": "Export interval",
        "description": "How often your services export (OTEL_METRIC_EXPORT_INTERVAL).",
        "query": ",".join(values),
        "options": options,
        "current": {"text": MIN_INTERVAL, "value": MIN_INTERVAL},
    }


def annotation(name, color, query, title, text):
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "iconColor": color,
        "titleFormat": title,
        "textFormat": text,
        "target": {"refId": "Anno", "expr": promql(query), "interval": MIN_INTERVAL},
    }


ANNOTATIONS = [
    # A version is new if even its oldest process is young, and if it was not visible ten minutes ago.
    annotation("Deploys", "blue",
               'max by (job, service_version) (process_uptime_seconds{$S, service_version!=""}) < 180'
               ' unless on (job, service_version) group by (job, service_version) (process_uptime_seconds{$S} offset 10m)',
               "Deploy", "{{job}} {{service_version}}"),
    # By age and not by a fall of the uptime, because a process that starts again may have a new instance id.
    annotation("Starts", "orange", f"min by ({PROCESS_LABELS}) (process_uptime_seconds{{$S}}) < 120", "Start", "{{job}} {{instance}} started"),
]


def dashboard():
    panels, y = [], 0
    for title, content, collapsed in ROWS:
        row = {"type": "row", "title": title, "collapsed": collapsed, "panels": content if collapsed else [], "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}}
        y = place(content, y + 1)
        panels += [row] if collapsed else [row, *content]
    every = [each for panel in panels for each in (panel, *panel.get("panels", []))]
    for target in (target for each in every for target in each.get("targets", [])):
        target["expr"] = promql(target["expr"])
    for number, each in enumerate(every, 1):
        each["id"] = number
        link_to_flame(each)
    source = {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "current": {"text": "Rust runtime", "value": "rust-runtime"}}
    return {
        "uid": "rust-runtime",
        "title": "Rust runtime",
        "description": "Allocator, Tokio, tasks and process of services that use opentelemetry-instrumentation-runtime.",
        "tags": ["rust", "tokio", "opentelemetry"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-30m", "to": "now"},
        "refresh": "30s",
        "annotations": {"list": ANNOTATIONS},
        "templating": {"list": [source, *(variable(at) for at in range(len(SELECTION))), export_interval()]},
        "panels": panels,
    }


if __name__ == "__main__":
    for out, content in ((OUT, dashboard()), (PROFILES, profiles())):
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        if sys.argv[1:] == ["--check"]:
            if out.read_text() != text:
                sys.exit(f"{out.name} differs from what dashboard.py writes: run deploy/grafana/dashboard.py")
        else:
            out.write_text(text)
