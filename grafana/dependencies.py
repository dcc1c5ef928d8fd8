"""Dependencies: is it us or somebody we call, and is the database the one?"""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana import limits, uids
from grafana.boards import board
from grafana.links import traces
from grafana.panels import Row, number, rows_of, time_series
from grafana.promql import INSTANCES, RANGE, dots, quantile, rate, recorded_rate, select, share, total
from grafana.queries import Column, Query
from grafana.thresholds import above
from obslib import names
from prometheus import recorded

_HTTP = names.HTTP_CLIENT_REQUEST_DURATION
_DB = names.DB_CLIENT_OPERATION_DURATION
_HOST = names.LABEL_SERVER_ADDRESS
_SYSTEM = names.LABEL_DB_SYSTEM
_OPERATION = f"{names.LABEL_DB_SYSTEM}, {names.LABEL_DB_OPERATION}"
_POOL = names.LABEL_POOL
_BY_HOST = f"{{{{{_HOST}}}}}"
_BY_SYSTEM = f"{{{{{_SYSTEM}}}}}"
_BY_OPERATION = f"{{{{{names.LABEL_DB_SYSTEM}}}}} {{{{{names.LABEL_DB_OPERATION}}}}}"
_BY_POOL = f"{{{{{_POOL}}}}}"
#: A call that failed for us: the other's 4xx are our own mistakes.
_HTTP_FAILED = f'{names.LABEL_ERROR_TYPE}!~"|4.."'
_DB_FAILED = f'{names.LABEL_ERROR_TYPE}!=""'
_TRACES = traces("Traces")


def _buckets(over: str = "") -> str:
    return recorded_rate(recorded.OPERATION_BUCKETS, f"{_DB}_bucket", INSTANCES, by=f"{_OPERATION}, le", over=over)


def dashboard() -> Dashboard:
    """What the service waits for."""
    return board(
        uids.DEPENDENCIES,
        "Is it us or somebody we call, and is the database the one?",
        [
            Row(title="Now", panels=[calls(), call_errors(), operations(), operation_errors(), waiting(), elsewhere()]),
            Row(title="Other services", panels=[calls_by_host(), errors_by_host(), durations_by_host()]),
            Row(
                title="Databases",
                panels=[operations_by_system(), errors_by_system(), durations_by_operation(), time_in_database()],
            ),
            Row(title="Operations", panels=[slowest()]),
            Row(title="Connection pools", panels=[connections(), pool_use(), pool_waiting(), pool_wait()]),
        ],
    )


def calls() -> Panel:
    return number(
        "Calls",
        "HTTP requests that the service makes. When it rises faster than its own requests: retries; see the errors.",
        "reqps",
        Query(expression=total(rate(f"{_HTTP}_count", INSTANCES))),
        links=[_TRACES],
    )


def call_errors() -> Panel:
    failed = total(rate(f"{_HTTP}_count", INSTANCES, _HTTP_FAILED))
    return number(
        "Failed calls",
        "The share without an answer or with a 5xx. When red: the host is named below; ask those who run it.",
        "percentunit",
        Query(expression=share(failed, total(rate(f"{_HTTP}_count", INSTANCES)))),
        limits=above(limits.DEPENDENCY_ERROR_SHARE),
        decimals=2,
    )


def operations() -> Panel:
    return number(
        "Operations",
        "Statements and commands that databases are sent. When it rises faster than the requests: a query in a loop.",
        "ops",
        Query(expression=total(rate(f"{_DB}_count", INSTANCES))),
    )


def operation_errors() -> Panel:
    failed = total(rate(f"{_DB}_count", INSTANCES, _DB_FAILED))
    return number(
        "Failed operations",
        "The share that a database refused or did not answer. When red: see which system below, then its own logs.",
        "percentunit",
        Query(expression=share(failed, total(rate(f"{_DB}_count", INSTANCES)))),
        limits=above(limits.DEPENDENCY_ERROR_SHARE),
        decimals=2,
    )


def waiting() -> Panel:
    return number(
        "Waiting for a connection",
        "Requests that no pool has a connection for. When red for long: connections are held too long, or too few.",
        "none",
        Query(expression=total(select(names.DB_CLIENT_CONNECTION_PENDING_REQUESTS, INSTANCES))),
        limits=above(1),
    )


def elsewhere() -> Panel:
    return number(
        "Waiting for others at once",
        "Calls and operations under way, on average. When close to the requests in flight: the slowness is not ours.",
        "none",
        Query(
            expression=f"({total(rate(f'{_HTTP}_sum', INSTANCES))} or vector(0))"
            f" + ({total(rate(f'{_DB}_sum', INSTANCES))} or vector(0))"
        ),
        decimals=2,
    )


def calls_by_host() -> Panel:
    return time_series(
        "Calls by host",
        "A second. When one line falls to zero: its circuit is open, or nobody asks for it any more.",
        "reqps",
        Query(expression=total(rate(f"{_HTTP}_count", INSTANCES), by=_HOST), legend=_BY_HOST),
        links=[_TRACES],
    )


def errors_by_host() -> Panel:
    failed = total(rate(f"{_HTTP}_count", INSTANCES, _HTTP_FAILED), by=_HOST)
    return time_series(
        "Failed calls by host",
        "Time-outs, refused connections, 5xx. When red: users may feel it; see whether retries make it worse.",
        "percentunit",
        Query(
            expression=share(failed, total(rate(f"{_HTTP}_count", INSTANCES), by=_HOST)),
            legend=_BY_HOST,
        ),
        limits=above(limits.DEPENDENCY_ERROR_SHARE),
        links=[_TRACES],
    )


def durations_by_host() -> Panel:
    return time_series(
        "Calls by host, p95",
        "Until the answer's headers; dots have a trace. When one rises and ours follows: it is that host.",
        "s",
        Query(expression=quantile(0.95, _HTTP, INSTANCES, by=_HOST), legend=_BY_HOST),
        Query(expression=dots(f"{_HTTP}_bucket", INSTANCES), exemplars=True),
        links=[_TRACES],
    )


def operations_by_system() -> Panel:
    return time_series(
        "Operations by kind",
        "A second, by kind. When one kind grows alone: a query came into a loop with the last deploy.",
        "ops",
        Query(expression=total(rate(f"{_DB}_count", INSTANCES), by=_OPERATION), legend=_BY_OPERATION),
        stacked=True,
        width=6,
    )


def errors_by_system() -> Panel:
    failed = total(rate(f"{_DB}_count", INSTANCES, _DB_FAILED), by=_SYSTEM)
    return time_series(
        "Failed operations by system",
        "By system. When red: is it up, is it full, does it refuse connections? The traces' errors say which.",
        "percentunit",
        Query(
            expression=share(failed, total(rate(f"{_DB}_count", INSTANCES), by=_SYSTEM)),
            legend=_BY_SYSTEM,
        ),
        limits=above(limits.DEPENDENCY_ERROR_SHARE),
        width=6,
        links=[_TRACES],
    )


def durations_by_operation() -> Panel:
    return time_series(
        "Operations, p95",
        "How long one takes; dots have a trace. When it rises: a missing index, a lock, or a server that is full.",
        "s",
        Query(expression=f"histogram_quantile(0.95, {_buckets()}) >= 0", legend=_BY_OPERATION),
        Query(expression=dots(f"{_DB}_bucket", INSTANCES), exemplars=True),
        width=6,
        links=[_TRACES],
    )


def time_in_database() -> Panel:
    return time_series(
        "Operations under way",
        "On average, at once: rate times duration. When it nears the pool's size: the pool will be the bottleneck.",
        "none",
        Query(expression=total(rate(f"{_DB}_sum", INSTANCES), by=_SYSTEM), legend=_BY_SYSTEM),
        stacked=True,
        width=6,
    )


def slowest() -> Panel:
    count = total(rate(f"{_DB}_count", INSTANCES, window=RANGE), by=_OPERATION)
    seconds = total(rate(f"{_DB}_sum", INSTANCES, window=RANGE), by=_OPERATION)
    failed = total(rate(f"{_DB}_count", INSTANCES, _DB_FAILED, window=RANGE), by=_OPERATION)
    return rows_of(
        "Operations by cost",
        "Over the time that is shown, the most expensive first. When the first costs most: make it rarer or faster.",
        Column(title="A second", expression=count, unit="ops"),
        Column(title="Mean", expression=f"{seconds} / ({count} > 0)", unit="s"),
        Column(title="p95", expression=f"histogram_quantile(0.95, {_buckets(over=RANGE)}) >= 0", unit="s"),
        Column(
            title="Errors",
            expression=share(failed, count),
            unit="percentunit",
            limits=above(limits.DEPENDENCY_ERROR_SHARE),
        ),
        Column(title="Under way", expression=seconds, unit="none"),
        sort_by="Under way",
    )


def connections() -> Panel:
    by = f"{_POOL}, {names.LABEL_CONNECTION_STATE}"
    return time_series(
        "Connections",
        "By pool and state. When used never comes back to idle: connections are not given back; look for a leak.",
        "none",
        Query(
            expression=total(select(names.DB_CLIENT_CONNECTIONS, INSTANCES), by=by),
            legend=f"{_BY_POOL} {{{{{names.LABEL_CONNECTION_STATE}}}}}",
        ),
        stacked=True,
        width=6,
    )


def pool_use() -> Panel:
    used = select(names.DB_CLIENT_CONNECTIONS, INSTANCES, f'{names.LABEL_CONNECTION_STATE}="{names.CONNECTION_USED}"')
    most = select(names.DB_CLIENT_CONNECTION_MAX, INSTANCES)
    return time_series(
        "Pools in use",
        "Connections used of those a pool may open. When at 100 %: requests wait; shorten transactions before adding.",
        "percentunit",
        Query(expression=f"{total(used, by=_POOL)} / ({total(most, by=_POOL)} > 0)", legend=_BY_POOL),
        limits=above(1, amber=0.8),
        width=6,
    )


def pool_waiting() -> Panel:
    return time_series(
        "Waiting by pool",
        "Requests that a pool keeps waiting. When red for two minutes: it alerts; look at what holds connections.",
        "none",
        Query(
            expression=total(select(names.DB_CLIENT_CONNECTION_PENDING_REQUESTS, INSTANCES), by=_POOL), legend=_BY_POOL
        ),
        limits=above(1),
        width=6,
    )


def pool_wait() -> Panel:
    return time_series(
        "Wait for a connection, p95",
        "What a request loses before its first statement. When it rises with the load: the pool is too small for it.",
        "s",
        Query(expression=quantile(0.95, names.DB_CLIENT_CONNECTION_WAIT_TIME, INSTANCES, by=_POOL), legend=_BY_POOL),
        width=6,
    )
