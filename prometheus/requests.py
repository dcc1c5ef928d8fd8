"""What services do: rates, errors, durations, replicas, CPU, memory."""

from obslib import names
from prometheus import foreign, recorded
from prometheus.durations import Clock
from prometheus.policy import Policy
from prometheus.promql import BAD, BY_INSTANCE, BY_SERVICE, COUNTED, ON_INSTANCE, ON_SERVICE, SERVICE, lines, selector
from prometheus.rules import Group, Record

_COUNT = f"{names.HTTP_SERVER_REQUEST_DURATION}_count"
_BUCKET = f"{names.HTTP_SERVER_REQUEST_DURATION}_bucket"
_ROUTE = f"{SERVICE}, {names.LABEL_METHOD}, {names.LABEL_ROUTE}"
_BY_ROUTE = f"by ({_ROUTE})"
_BY_ROUTE_AND_BOUND = f"by ({_ROUTE}, le)"
_OPERATION = f"{SERVICE}, {names.LABEL_DB_SYSTEM}, {names.LABEL_DB_OPERATION}"


def groups(policy: Policy, clock: Clock) -> list[Group]:
    """Sums first, divided last; a rate before its sum, so that a restart is no negative rate."""
    return [
        # Every bucket of every route of every replica goes through here. What changes over five minutes need not be
        # known every five seconds, and nothing that scales reads it.
        Group(
            name="obslib_requests",
            interval=clock("15s"),
            rules=[*_rates(clock), *_durations(clock), _operations(clock)],
        ),
        # As often as the scaling rules that read them.
        Group(name="obslib_processes", interval=clock(policy.server.scrape_interval), rules=_processes(clock)),
    ]


def _rates(clock: Clock) -> list[Record]:
    requests = f"(rate({selector(_COUNT, COUNTED)}[{clock('5m')}]))"
    errors = f"(rate({selector(_COUNT, BAD)}[{clock('5m')}]))"
    levels = (
        (BY_INSTANCE, recorded.INSTANCE_REQUESTS, requests, recorded.INSTANCE_ERRORS, errors),
        # The counters are read once for the replicas and once for the routes; a service is its replicas.
        (
            BY_SERVICE,
            recorded.REQUESTS,
            f"({recorded.INSTANCE_REQUESTS})",
            recorded.ERRORS,
            f"({recorded.INSTANCE_ERRORS})",
        ),
        (_BY_ROUTE, recorded.ROUTE_REQUESTS, requests, recorded.ROUTE_ERRORS, errors),
    )
    rates = [
        rule
        for by, total, counted, bad, broken in levels
        for rule in (
            Record(name=total, expression=f"sum {by} {counted}"),
            # Zero, not absent, before the first error.
            Record(name=bad, expression=f"sum {by} {broken} or 0 * {total}"),
        )
    ]
    return [*rates, Record(name=recorded.ERROR_RATIO, expression=f"{recorded.ERRORS} / ({recorded.REQUESTS} > 0)")]


def _durations(clock: Clock) -> list[Record]:
    buckets = f"(rate({selector(_BUCKET, COUNTED)}[{clock('5m')}]))"
    return [
        # The buckets are read once; a service is its routes.
        Record(name=recorded.ROUTE_BUCKETS, expression=f"sum {_BY_ROUTE_AND_BOUND} {buckets}"),
        Record(name=recorded.BUCKETS, expression=f"sum by ({SERVICE}, le) ({recorded.ROUTE_BUCKETS})"),
        *[
            # Without requests the quantile is NaN, which no comparison and no panel should meet.
            Record(name=name, expression=f"histogram_quantile({quantile}, {recorded.BUCKETS}) >= 0")
            for name, quantile in ((recorded.P50, "0.5"), (recorded.P95, "0.95"), (recorded.P99, "0.99"))
        ],
    ]


def _operations(clock: Clock) -> Record:
    buckets = f"{names.DB_CLIENT_OPERATION_DURATION}_bucket"
    return Record(
        name=recorded.OPERATION_BUCKETS, expression=f"sum by ({_OPERATION}, le) (rate({buckets}[{clock('5m')}]))"
    )


def _processes(clock: Clock) -> list[Record]:
    processes = f"count {BY_INSTANCE} ({foreign.PROCESS_CPU})"
    limit = f"max {BY_INSTANCE} ({names.PROCESS_CPU_LIMIT})"
    active = names.HTTP_SERVER_ACTIVE_REQUESTS
    return [
        Record(name=recorded.UP, expression=f"count {BY_SERVICE} ({foreign.UP} == 1)"),
        Record(name=recorded.IN_FLIGHT, expression=f"sum {BY_SERVICE} ({active})"),
        Record(
            name=recorded.IN_FLIGHT_AVERAGE, expression=f"sum {BY_SERVICE} (avg_over_time({active}[{clock('30s')}]))"
        ),
        Record(name=recorded.INSTANCE_MEMORY, expression=f"sum {BY_INSTANCE} ({foreign.PROCESS_MEMORY})"),
        Record(
            name=recorded.INSTANCE_CPU,
            expression=f"sum {BY_INSTANCE} (rate({foreign.PROCESS_CPU}[{clock('5m')}]))",
        ),
        # One Python process cannot use more than one core, whatever its limit: half of two cores is all of it.
        Record(
            name=recorded.INSTANCE_CPU_USABLE,
            expression=lines(f"""
                ({limit} < {ON_INSTANCE} {processes})
                or {ON_INSTANCE}
                {processes}
            """),
        ),
        Record(
            name=recorded.CPU,
            expression=lines(f"""
                sum {BY_SERVICE} ({recorded.INSTANCE_CPU})
                / {ON_SERVICE}
                (sum {BY_SERVICE} ({recorded.INSTANCE_CPU_USABLE}) > 0)
            """),
        ),
    ]
