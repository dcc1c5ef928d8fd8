"""Saturation & scaling: is there enough of the service, and does it get more when there is not?"""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana import autoscaler, limits, uids
from grafana.boards import board
from grafana.panels import Row, number, time_series
from grafana.promql import BY_INSTANCE, BY_SERVICE, INSTANCES, SERVICE, WINDOW, quantile, select, total
from grafana.queries import Query
from grafana.thresholds import above
from obslib import names
from prometheus import foreign, recorded

_ON_SERVICE = f"on ({BY_SERVICE})"
_ACTIVE = select(names.HTTP_SERVER_ACTIVE_REQUESTS, INSTANCES)
_SIGNAL = names.LABEL_SIGNAL
# What a signal is called where it asks for replicas
_IN_FLIGHT = "in_flight"
_CPU = "cpu"
_BACKLOG = "backlog"


def dashboard() -> Dashboard:
    """What asks for replicas, and what came of it."""
    return board(
        uids.SCALING,
        "Is there enough of the service, and does it get more when there is not?",
        [
            Row(title="Now", panels=[desired(), running(), up(), signals(), turns(), busiest()]),
            Row(title="Replicas", panels=[replicas(), demand()]),
            Row(title="What asks for them", panels=[in_flight(), cpu(), backlog(), balancer_queue()]),
            Row(title="Whether it helps", panels=[in_flight_by_replica(), skew(), cpu_by_replica(), lag(), threads()]),
            autoscaler.row(),
        ],
    )


def desired() -> Panel:
    return number(
        "Desired",
        "What the recording rule decides from all signals, within the policy's bounds. It is acted on, never red.",
        "none",
        Query(expression=select(recorded.SCALE_DESIRED, SERVICE)),
    )


def running() -> Panel:
    return number(
        "Running",
        "Up or not, as the autoscaler counts. When it stays below desired: it is away, or replicas do not get ready.",
        "none",
        Query(expression=select(recorded.SCALE_RUNNING, SERVICE)),
    )


def up() -> Panel:
    return number(
        "Up",
        "Replicas that answer scrapes. When below running for long: they crash at their start; read their logs.",
        "none",
        Query(expression=f"count({select(foreign.UP, SERVICE)} == 1) or vector(0)"),
    )


def signals() -> Panel:
    expected = select(recorded.SCALE_DEMAND_EXPECTED, SERVICE)
    complete = select(recorded.SCALE_DEMAND_COMPLETE, SERVICE)
    return number(
        "Signals missing",
        "Until all are there replicas may be added and none is taken away. When red: see below which line has ended.",
        "none",
        Query(expression=f"{expected} - {_ON_SERVICE} ({complete} or {_ON_SERVICE} 0 * {expected})"),
        limits=above(1),
    )


def turns() -> Panel:
    running = f"{select(recorded.SCALE_RUNNING, SERVICE)}[30m]"
    return number(
        "Turns in 30 minutes",
        "How often replicas were added and taken away. When red, it flaps: the target is too near to the usual load.",
        "none",
        Query(
            expression=f"changes({running}) - resets({running}) < {_ON_SERVICE} resets({running})"
            f" or {_ON_SERVICE} resets({running})"
        ),
        limits=above(limits.REPLICA_TURNS + 1),
    )


def busiest() -> Panel:
    return number(
        "Busiest replica",
        "The highest CPU share of what one replica can use. When red and the others are not: load is unevenly spread.",
        "percentunit",
        Query(expression=f"max({_cpu_share()})"),
        limits=above(limits.CPU_SHARE),
    )


def replicas() -> Panel:
    return time_series(
        "Replicas",
        "Running follows desired within seconds. When desired lies on the maximum: raise it, or shed load.",
        "none",
        Query(expression=select(recorded.SCALE_DESIRED, SERVICE), legend="desired"),
        Query(expression=select(recorded.SCALE_RUNNING, SERVICE), legend="running"),
        Query(expression=select(recorded.UP, SERVICE), legend="up"),
        Query(expression=select(recorded.SCALE_MIN, SERVICE), legend="minimum"),
        Query(expression=select(recorded.SCALE_MAX, SERVICE), legend="maximum", is_limit=True),
        width=12,
    )


def demand() -> Panel:
    return time_series(
        "Demand by signal",
        "How many replicas each signal asks for; the largest decides. When a line ends: that signal is lost, see why.",
        "none",
        Query(expression=select(recorded.SCALE_DEMAND, SERVICE), legend=f"{{{{{_SIGNAL}}}}}"),
        Query(expression=select(recorded.SCALE_RUNNING, SERVICE), legend="running", is_limit=True),
        width=12,
    )


def in_flight() -> Panel:
    target = select(recorded.SCALE_TARGET, SERVICE, f'{_SIGNAL}="{_IN_FLIGHT}"')
    per_replica = f"{total(_ACTIVE, by=BY_SERVICE)} / {_ON_SERVICE} ({select(recorded.UP, SERVICE)} > 0)"
    return time_series(
        "In flight a replica",
        "Requests at once, on average. When it stays above the dashed target: replicas are added, or cannot be.",
        "none",
        Query(expression=per_replica, legend="in flight"),
        Query(expression=target, legend="target", is_limit=True),
        width=6,
    )


def cpu() -> Panel:
    target = select(recorded.SCALE_TARGET, SERVICE, f'{_SIGNAL}="{_CPU}"')
    return time_series(
        "CPU of usable cores",
        "On average over all replicas. Above the dashed target for the policy's hold time: one replica more.",
        "percentunit",
        Query(expression=select(recorded.CPU, SERVICE), legend="CPU"),
        Query(expression=target, legend="target", is_limit=True),
        limits=above(limits.CPU_SHARE),
        width=6,
    )


def backlog() -> Panel:
    chosen = f'{SERVICE}, {_SIGNAL}="{_BACKLOG}"'
    asked, target = select(recorded.SCALE_DEMAND, chosen), select(recorded.SCALE_TARGET, chosen)
    running = select(recorded.SCALE_RUNNING, SERVICE)
    return time_series(
        "Backlog",
        "Jobs that wait, of services with a queue. When it grows for long: jobs fail and come back, or are slow.",
        "short",
        Query(expression=f"{asked} * {_ON_SERVICE} {target}", legend="waiting"),
        Query(expression=f"{running} * {_ON_SERVICE} {target}", legend="target", is_limit=True),
        width=6,
    )


def balancer_queue() -> Panel:
    return time_series(
        "Waiting in the balancer",
        "Requests that no replica has yet, by HAProxy's backend. When above zero: replicas are full unseen.",
        "short",
        Query(
            expression=total(foreign.HAPROXY_BACKEND_QUEUE, by=foreign.LABEL_PROXY),
            legend=f"{{{{{foreign.LABEL_PROXY}}}}}",
        ),
        width=6,
    )


def in_flight_by_replica() -> Panel:
    target = select(recorded.SCALE_TARGET, SERVICE, f'{_SIGNAL}="{_IN_FLIGHT}"')
    return time_series(
        "In flight by replica",
        "When all lines are above the dashed one: requests queue inside. When one is: the balancer prefers it.",
        "none",
        Query(expression=total(_ACTIVE, by=names.LABEL_INSTANCE), legend="{{instance}}"),
        Query(expression=f"{limits.IN_FLIGHT_TIMES_TARGET} * {target}", legend="saturated", is_limit=True),
    )


def skew() -> Panel:
    by_replica = total(_ACTIVE, by=BY_INSTANCE)
    return time_series(
        "Load skew",
        "The busiest replica's requests in flight over the average; 1 is even. When red: one is slow or preferred.",
        "none",
        Query(expression=f"max({by_replica}) / (avg({by_replica}) > 0)", legend="skew"),
        limits=above(limits.LOAD_SKEW),
    )


def cpu_by_replica() -> Panel:
    return time_series(
        "CPU of usable cores by replica",
        "One Python process uses one core at most. When all are red: more replicas. When one is: look at its traces.",
        "percentunit",
        Query(expression=_cpu_share(), legend="{{instance}}"),
        limits=above(limits.CPU_SHARE),
    )


def lag() -> Panel:
    return time_series(
        "Event loop lag, p95",
        "How late a ready coroutine gets its turn. When red: a call blocks the loop, and more replicas hardly help.",
        "s",
        Query(
            expression=quantile(0.95, names.ASYNCIO_EVENT_LOOP_LAG, INSTANCES, by=names.LABEL_INSTANCE),
            legend="{{instance}}",
        ),
        limits=above(limits.EVENT_LOOP_LAG_SECONDS),
    )


def threads() -> Panel:
    borrowed = total(select(names.ANYIO_THREAD_LIMITER_BORROWED, INSTANCES), by=names.LABEL_INSTANCE)
    limit = total(select(names.ANYIO_THREAD_LIMITER_MAX, INSTANCES), by=names.LABEL_INSTANCE)
    return time_series(
        "Threads in use",
        "Of those for sync endpoints and dependencies. When at 100 %: requests wait; make endpoints async.",
        "percentunit",
        Query(expression=f"{borrowed} / {limit}", legend="{{instance}}"),
        limits=above(1, amber=0.8),
        max_value=1,
    )


def _cpu_share() -> str:
    """Cores a replica uses of those it can: one a process, or its limit where that is lower."""
    used = f"rate({select(foreign.PROCESS_CPU, INSTANCES)}[{WINDOW}])"
    usable = select(recorded.INSTANCE_CPU_USABLE, INSTANCES)
    return f"sum by ({BY_INSTANCE}) ({used}) / on ({BY_INSTANCE}) {usable}"
