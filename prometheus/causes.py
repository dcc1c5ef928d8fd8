"""Why users may be about to feel something: tickets, silent while the service is down."""

from obslib import names
from prometheus import foreign, links, recorded
from prometheus.durations import Clock
from prometheus.policy import Backlog, Policy, Service
from prometheus.promql import BY_INSTANCE, INSTANCE, ON_INSTANCE, ON_SERVICE, SERVICE, lines, selector
from prometheus.rules import CAUSE, TICKET, Alert, Group

#: Times the number of requests a replica is meant to have at once.
_SATURATED = 2
_CPU = "0.9"
_LAG_SECONDS = "0.1"
_DESCRIPTORS = "0.8"
_FAILING = "0.1"
_MIN_FAILURES = 5
#: Times the backlog that all replicas the policy allows are meant to have.
_BACKLOG = 2


def groups(policy: Policy, clock: Clock) -> list[Group]:
    """Causes every service may have, and those of the signals the policy names."""
    rules = [
        *_in_flight(policy, clock),
        _cpu(clock),
        _lag(clock),
        _memory(clock),
        _descriptors(clock),
        _pool(clock),
        _threads(clock),
        _dependency(clock),
        _database(clock),
        *(_backlog(s, s.scaling.backlog, clock) for s in policy.scaling() if s.scaling and s.scaling.backlog),
    ]
    return [Group(name="obslib_causes", rules=rules)]


def _ticket(
    name: str, expression: str, clock: Clock, lasting: str, summary: str, description: str, board: str
) -> Alert:
    return Alert(
        name=name,
        expression=lines(expression),
        lasting=clock(lasting),
        severity=TICKET,
        kind=CAUSE,
        summary=summary,
        description=description,
        dashboard=board,
        runbook="causes",
    )


def _in_flight(policy: Policy, clock: Clock) -> list[Alert]:
    if not any(s.scaling and s.scaling.in_flight_per_replica for s in policy.scaling()):
        return []
    target = selector(recorded.SCALE_TARGET, signal="in_flight")
    return [
        _ticket(
            "ConcurrencySaturated",
            f"""
                {recorded.IN_FLIGHT_AVERAGE} / {ON_SERVICE} {recorded.SCALE_RUNNING} / {ON_SERVICE} {target}
                > {_SATURATED}
            """,
            clock,
            "2m",
            "{{ $labels.service }} has more requests at once than its replicas are meant for",
            "Each replica has {{ $value | humanize }} times the requests in flight it is meant to have: they wait.",
            links.SCALING,
        )
    ]


def _cpu(clock: Clock) -> Alert:
    return _ticket(
        "CpuSaturated",
        f"{recorded.CPU} > {_CPU}",
        clock,
        "10m",
        "{{ $labels.service }} uses nearly all the CPU it can",
        "{{ $value | humanizePercentage }} of what its processes can use is used, on average over all replicas.",
        links.SCALING,
    )


def _lag(clock: Clock) -> Alert:
    buckets = f"rate({names.ASYNCIO_EVENT_LOOP_LAG}_bucket[{clock('2m')}])"
    return _ticket(
        "EventLoopLagHigh",
        f"histogram_quantile(0.95, sum by ({INSTANCE}, le) ({buckets})) > {_LAG_SECONDS}",
        clock,
        "2m",
        "{{ $labels.instance }}: something blocks the event loop",
        "A coroutine that is ready waits {{ $value | humanizeDuration }} for its turn (p95): all requests of the "
        "process wait for the one that blocks.",
        links.RUNTIME,
    )


def _memory(clock: Clock) -> Alert:
    used = recorded.INSTANCE_MEMORY
    limit = f"max {BY_INSTANCE} ({names.PROCESS_MEMORY_LIMIT})"
    oldest = f"max {BY_INSTANCE} (time() - {foreign.PROCESS_START})"
    return _ticket(
        "MemoryExhaustionPredicted",
        f"""
            predict_linear({used}[{clock("30m")}], {clock.seconds("1h")}) > {ON_INSTANCE} {limit}
            and {ON_INSTANCE}
            {used} > {ON_INSTANCE} 0.6 * {limit}
            and {ON_INSTANCE}
            {oldest} > {clock.seconds("30m")}
        """,
        clock,
        "10m",
        "{{ $labels.instance }} will run out of memory within the hour",
        "At the pace of the last half hour it will have {{ $value | humanize1024 }}B, more than its limit.",
        links.RUNTIME,
    )


def _descriptors(clock: Clock) -> Alert:
    return _ticket(
        "FdExhaustion",
        f"max {BY_INSTANCE} ({foreign.PROCESS_OPEN_FDS} / {foreign.PROCESS_MAX_FDS}) > {_DESCRIPTORS}",
        clock,
        "5m",
        "{{ $labels.instance }} runs out of file descriptors",
        "{{ $value | humanizePercentage }} of those it may have are open; at the limit it accepts no connection.",
        links.RUNTIME,
    )


def _pool(clock: Clock) -> Alert:
    by = f"by ({INSTANCE}, {names.LABEL_POOL})"
    return _ticket(
        "ConnectionPoolExhausted",
        f"max {by} (min_over_time({names.DB_CLIENT_CONNECTION_PENDING_REQUESTS}[{clock('1m')}]) > 0)",
        clock,
        "2m",
        "{{ $labels.instance }}: requests wait for a connection",
        "At least {{ $value }} wait for a connection of the pool {{ $labels." + names.LABEL_POOL + " }} all the time.",
        links.DEPENDENCIES,
    )


def _threads(clock: Clock) -> Alert:
    return _ticket(
        "ThreadsExhausted",
        f"max {BY_INSTANCE} (min_over_time({names.ANYIO_THREAD_LIMITER_WAITING}[{clock('1m')}])) > 0",
        clock,
        "2m",
        "{{ $labels.instance }}: requests wait for a thread",
        "At least {{ $value }} calls of synchronous code wait for a thread all the time.",
        links.RUNTIME,
    )


def _dependency(clock: Clock) -> Alert:
    count = f"{names.HTTP_CLIENT_REQUEST_DURATION}_count"
    # A 4xx is the callee's judgement of our request: it works.
    failed = selector(count, f'{names.LABEL_ERROR_TYPE}!~"|4.."')
    by = f"by ({SERVICE}, {names.LABEL_SERVER_ADDRESS})"
    window = clock("5m")
    return _ticket(
        "DependencyFailing",
        f"""
            sum {by} (increase({failed}[{window}])) / (sum {by} (increase({count}[{window}])) > 0) > {_FAILING}
            and
            sum {by} (increase({failed}[{window}])) >= {_MIN_FAILURES}
        """,
        clock,
        "2m",
        "{{ $labels.service }}: calls to {{ $labels." + names.LABEL_SERVER_ADDRESS + " }} fail",
        "{{ $value | humanizePercentage }} of its calls there have failed.",
        links.DEPENDENCIES,
    )


def _database(clock: Clock) -> Alert:
    count = f"{names.DB_CLIENT_OPERATION_DURATION}_count"
    failed = selector(count, f'{names.LABEL_ERROR_TYPE}!=""')
    by = f"by ({SERVICE}, {names.LABEL_DB_SYSTEM})"
    window = clock("5m")
    return _ticket(
        "DatabaseFailing",
        f"""
            sum {by} (increase({failed}[{window}])) / (sum {by} (increase({count}[{window}])) > 0) > {_FAILING}
            and
            sum {by} (increase({failed}[{window}])) >= {_MIN_FAILURES}
        """,
        clock,
        "2m",
        "{{ $labels.service }}: operations on {{ $labels." + names.LABEL_DB_SYSTEM + " }} fail",
        "{{ $value | humanizePercentage }} of its operations there have failed.",
        links.DEPENDENCIES,
    )


def _backlog(service: Service, backlog: Backlog, clock: Clock) -> Alert:
    own = selector(recorded.SCALE_DEMAND, signal="backlog", **service.identity)
    return _ticket(
        "QueueBacklog",
        f"""
            {own} > {ON_SERVICE} {_BACKLOG} * {recorded.SCALE_MAX}
            or {ON_SERVICE}
            ({own} > {ON_SERVICE} {recorded.SCALE_RUNNING} and {ON_SERVICE} deriv({own}[{clock("15m")}]) > 0)
        """,
        clock,
        "15m",
        "{{ $labels.service }}: its queue grows faster than it is worked off",
        f"{backlog.metric} asks for {{{{ $value | humanize }}}} replicas, and goes on growing.",
        links.SCALING,
    )
