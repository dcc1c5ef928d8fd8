"""Python runtime: is it the interpreter, the process or the machine that makes the service slow?"""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana import limits, uids
from grafana.boards import board
from grafana.panels import Row, heat, number, rows_of, time_series
from grafana.promql import INSTANCES, RANGE, quantile, rate, select, total
from grafana.queries import Column, Query
from grafana.thresholds import above
from obslib import names
from prometheus import foreign

_INSTANCE = names.LABEL_INSTANCE
_LEGEND = "{{instance}}"
_PAUSES = names.CPYTHON_GC_PAUSE_DURATION
# Labels of names.BUILD_INFO
_PYTHON = "python"
_OBSLIB = "version"


def dashboard() -> Dashboard:
    """Event loop, threads, garbage, CPU, memory, descriptors, versions."""
    return board(
        uids.RUNTIME,
        "Is it the interpreter, the process or the machine that makes the service slow?",
        [
            Row(title="Now", panels=[worst_lag(), memory_share(), cpu_cores(), collecting(), restarts(), youngest()]),
            Row(title="Event loop and threads", panels=[lag(), lag_heat(), threads(), waiting()]),
            Row(title="Garbage", panels=[pauses(), time_collecting(), collections(), uncollectable()]),
            Row(title="CPU and memory", panels=[cpu(), memory(), descriptors()]),
            Row(title="What runs", panels=[versions()]),
        ],
    )


def worst_lag() -> Panel:
    return number(
        "Event loop lag, p99",
        "How late a ready coroutine gets its turn. When red: find the call that blocks: a long span without children.",
        "s",
        Query(expression=quantile(0.99, names.ASYNCIO_EVENT_LOOP_LAG, INSTANCES)),
        limits=above(limits.EVENT_LOOP_LAG_SECONDS),
    )


def memory_share() -> Panel:
    return number(
        "Memory of limit",
        "The fullest replica. When red: it will be killed soon; restart it, then compare memory with its start.",
        "percentunit",
        Query(expression=f"max({_memory()} / {_memory_limit()})"),
        limits=above(limits.MEMORY_SHARE),
    )


def cpu_cores() -> Panel:
    return number(
        "CPU",
        "Cores that all replicas use together. When it rises and requests do not: something has become dearer.",
        "none",
        Query(expression=total(rate(foreign.PROCESS_CPU, INSTANCES))),
        decimals=2,
    )


def collecting() -> Panel:
    return number(
        "Time collecting garbage",
        "The share of time in which the interpreter does nothing else. When red: freeze what stays (gc.freeze).",
        "percentunit",
        Query(expression=f"max({total(rate(f'{_PAUSES}_sum', INSTANCES), by=_INSTANCE)})"),
        limits=above(limits.GC_SHARE),
        decimals=2,
    )


def restarts() -> Panel:
    return number(
        "Restarts",
        "Processes that were started anew in the time that is shown. When not zero: read the last lines before it.",
        "none",
        Query(expression=f"sum(changes({select(foreign.PROCESS_START, INSTANCES)}[{RANGE}]))"),
        limits=above(3, amber=1),
    )


def youngest() -> Panel:
    return number(
        "Youngest process",
        "How long ago the last one was started. When it never grows: a process crashes again and again.",
        "s",
        Query(expression=f"time() - max({select(foreign.PROCESS_START, INSTANCES)})"),
    )


def lag() -> Panel:
    return time_series(
        "Event loop lag, p95",
        "When one replica is red: a request it has blocks its loop. When all are: a code path does; look at a profile.",
        "s",
        Query(expression=quantile(0.95, names.ASYNCIO_EVENT_LOOP_LAG, INSTANCES, by=_INSTANCE), legend=_LEGEND),
        limits=above(limits.EVENT_LOOP_LAG_SECONDS),
        width=6,
    )


def lag_heat() -> Panel:
    return heat(
        "Event loop lag",
        "All samples. When a second band appears above: rare long blocks, which an average hides and callers feel.",
        "s",
        Query(expression=total(rate(f"{names.ASYNCIO_EVENT_LOOP_LAG}_bucket", INSTANCES), by="le"), legend="{{le}}"),
        width=6,
    )


def threads() -> Panel:
    limit = total(select(names.ANYIO_THREAD_LIMITER_MAX, INSTANCES), by=_INSTANCE)
    return time_series(
        "Threads in use",
        "Threads that run sync endpoints and dependencies. When on the dashed line: requests wait for a free one.",
        "none",
        Query(expression=total(select(names.ANYIO_THREAD_LIMITER_BORROWED, INSTANCES), by=_INSTANCE), legend=_LEGEND),
        Query(expression=f"min({limit})", legend="limit", is_limit=True),
        width=6,
    )


def waiting() -> Panel:
    return time_series(
        "Waiting for a thread",
        "Requests that a sync endpoint or dependency keeps waiting. When red: make it async, or raise anyio's limiter.",
        "none",
        Query(expression=total(select(names.ANYIO_THREAD_LIMITER_WAITING, INSTANCES), by=_INSTANCE), legend=_LEGEND),
        limits=above(1),
        width=6,
    )


def pauses() -> Panel:
    return time_series(
        "Garbage pauses, p99",
        "How long the interpreter stands still. When 2 is red: many objects live long; use gc.freeze after start.",
        "s",
        Query(
            expression=quantile(0.99, _PAUSES, INSTANCES, by=names.LABEL_GC_GENERATION),
            legend=f"generation {{{{{names.LABEL_GC_GENERATION}}}}}",
        ),
        limits=above(limits.EVENT_LOOP_LAG_SECONDS),
        width=6,
    )


def time_collecting() -> Panel:
    return time_series(
        "Time collecting by replica",
        "The share of time. When red: allocations, or too many collections; see the rate beside it.",
        "percentunit",
        Query(expression=total(rate(f"{_PAUSES}_sum", INSTANCES), by=_INSTANCE), legend=_LEGEND),
        limits=above(limits.GC_SHARE),
        width=6,
    )


def collections() -> Panel:
    return time_series(
        "Collections",
        "A second, by generation. When generation 2 is frequent: raise gc.set_threshold, or allocate less.",
        "ops",
        Query(
            expression=total(rate(foreign.GC_COLLECTIONS, INSTANCES), by=foreign.LABEL_GENERATION),
            legend=f"generation {{{{{foreign.LABEL_GENERATION}}}}}",
        ),
        width=6,
    )


def uncollectable() -> Panel:
    return time_series(
        "Uncollectable objects",
        "Found in the time that is shown; zero in healthy code. When red: a C extension leaks; see what was upgraded.",
        "none",
        Query(
            expression=total(f"increase({select(foreign.GC_UNCOLLECTABLE, INSTANCES)}[{RANGE}])", by=_INSTANCE),
            legend=_LEGEND,
        ),
        limits=above(1),
        width=6,
    )


def cpu() -> Panel:
    return time_series(
        "CPU by replica",
        "Cores, by replica; the dashed line is the limit. When a process is at one core: add processes, not cores.",
        "none",
        Query(expression=total(rate(foreign.PROCESS_CPU, INSTANCES), by=_INSTANCE), legend=_LEGEND),
        Query(expression=f"min({select(names.PROCESS_CPU_LIMIT, INSTANCES)})", legend="limit", is_limit=True),
    )


def memory() -> Panel:
    return time_series(
        "Memory by replica",
        "Resident, by replica; the dashed line is the limit. When it only rises: a leak, or a cache without a bound.",
        "bytes",
        Query(expression=_memory(), legend=_LEGEND),
        Query(expression=f"min({select(names.PROCESS_MEMORY_LIMIT, INSTANCES)})", legend="limit", is_limit=True),
    )


def descriptors() -> Panel:
    share = f"{select(foreign.PROCESS_OPEN_FDS, INSTANCES)} / {select(foreign.PROCESS_MAX_FDS, INSTANCES)}"
    return time_series(
        "File descriptors in use",
        "Of those a process may have. When red: connections are not closed, or the limit is too low (ulimit -n).",
        "percentunit",
        Query(expression=f"max by ({_INSTANCE}) ({share})", legend=_LEGEND),
        limits=above(limits.OPEN_FDS_SHARE),
    )


def versions() -> Panel:
    by = f"{names.LABEL_INSTANCE}, {_PYTHON}, {_OBSLIB}"
    return rows_of(
        "Versions",
        "Python and obslib of each replica, and its worker processes. When replicas differ: a deploy has not ended.",
        Column(title="Workers", expression=f"count by ({by}) ({select(names.BUILD_INFO, INSTANCES)})", unit="none"),
    )


def _memory() -> str:
    return total(select(foreign.PROCESS_MEMORY, INSTANCES), by=_INSTANCE)


def _memory_limit() -> str:
    # Workers of one replica share their control group's limit: every one of them reports it.
    return f"max by ({_INSTANCE}) ({select(names.PROCESS_MEMORY_LIMIT, INSTANCES)})"
