"""Service: are its users well, and if not, which route, which replica, since when?"""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana import background_tasks, by_replica, limits, uids, websockets
from grafana.boards import board
from grafana.links import traces
from grafana.panels import Row, heat, log_lines, number, rows_of, time_series
from grafana.promql import (
    BAD,
    COUNTED,
    INSTANCES,
    RANGE,
    ROUTES,
    SERVICE,
    WINDOW,
    dots,
    quantile,
    rate,
    recorded_rate,
    select,
    share,
    total,
)
from grafana.queries import Column, Query
from grafana.thresholds import above
from obslib import names
from prometheus import foreign, policy, recorded

_DURATION = names.HTTP_SERVER_REQUEST_DURATION
_COUNT = f"{_DURATION}_count"
_BUCKET = f"{_DURATION}_bucket"
_ROUTE = f"{names.LABEL_METHOD}, {names.LABEL_ROUTE}"
_OPERATION = f"{{{{{names.LABEL_METHOD}}}}} {{{{{names.LABEL_ROUTE}}}}}"
_TRACES = traces("Traces")
_FAILED_TRACES = traces("Failed traces", failed=True)
_ROW_TRACES = traces(
    "Traces of this route",
    operation=f"${{__data.fields.{names.LABEL_METHOD}}} ${{__data.fields.{names.LABEL_ROUTE}:percentencode}}",
)
#: Seconds within which a caller is satisfied, and within which he still waits.
_SATISFIED = "0.25"
_TOLERATED = "1.0"


def _counted(by: str = "", over: str = "") -> str:
    return recorded_rate(recorded.ROUTE_REQUESTS, _COUNT, ROUTES, by=by, also=COUNTED, over=over)


def _failed(by: str = "", over: str = "") -> str:
    return recorded_rate(recorded.ROUTE_ERRORS, _COUNT, ROUTES, by=by, also=BAD, over=over)


def _buckets(*matchers: str, by: str = "", over: str = "") -> str:
    return recorded_rate(recorded.ROUTE_BUCKETS, _BUCKET, ROUTES, *matchers, by=by, also=COUNTED, over=over)


def dashboard() -> Dashboard:
    """Rate, errors, duration: where every alert about requests leads."""
    return board(
        uids.SERVICE,
        "Are the service's users well, and if not, which route, which replica, since when?",
        [
            Row(title="Now", panels=[requests(), errors(), p95(), apdex(), in_flight(), replicas()]),
            Row(
                title="Requests, errors, durations",
                panels=[requests_by_route(), error_share(), durations(), status_codes(), error_types(), heatmap()],
            ),
            Row(title="Routes", panels=[routes()]),
            by_replica.row(),
            Row(title="Traffic", panels=[last_week(), disconnects(), first_bytes(), request_bytes(), response_bytes()]),
            background_tasks.row(),
            websockets.row(),
            Row(title="Logs (where Loki runs)", panels=[lines()], closed=True),
        ],
    )


def requests() -> Panel:
    return number(
        "Requests",
        "Requests a second. When it falls at once: nothing fails because nothing asks; look at the load balancer.",
        "reqps",
        Query(expression=total(rate(_COUNT, ROUTES))),
        links=[_TRACES],
    )


def errors() -> Panel:
    return number(
        "Errors",
        "The share of answers that were a 5xx or broke off. When it rises: the routes below show where.",
        "percentunit",
        Query(expression=share(_failed(), _counted())),
        links=[_FAILED_TRACES],
        decimals=2,
    )


def p95() -> Panel:
    return number(
        "Duration, p95",
        "19 of 20 answers took less. When it rises: see in the heat map whether all are slower or a second hump grew.",
        "s",
        Query(expression=f"histogram_quantile(0.95, {_buckets(by='le')}) >= 0"),
        links=[_TRACES],
    )


def apdex() -> Panel:
    satisfied, tolerated = (_buckets(f'le="{bound}"') for bound in (_SATISFIED, _TOLERATED))
    return number(
        "Apdex",
        "1: all within 0.25 s; half counts what took up to 1 s. When it falls: begin with the slowest route below.",
        "none",
        Query(expression=f"({satisfied} + {tolerated}) / 2 / ({_counted()} > 0)"),
        decimals=2,
    )


def in_flight() -> Panel:
    return number(
        "In flight",
        "Requests being answered now. When it rises faster than the requests: something behind the service is slow.",
        "none",
        Query(expression=total(select(names.HTTP_SERVER_ACTIVE_REQUESTS, INSTANCES))),
    )


def replicas() -> Panel:
    return number(
        "Replicas up",
        "Replicas that answer scrapes. When it falls without a scale-in: look at the restarts and the processes' logs.",
        "none",
        Query(expression=f"count({select(foreign.UP, INSTANCES)} == 1) or vector(0)"),
    )


def requests_by_route() -> Panel:
    return time_series(
        "Requests by route",
        "Which route the requests go to. When one line changes alone: ask who calls that route.",
        "reqps",
        Query(expression=total(rate(_COUNT, ROUTES), by=_ROUTE), legend=_OPERATION),
        stacked=True,
        links=[_TRACES],
    )


def error_share() -> Panel:
    limit = select(
        recorded.BURN_LIMIT, SERVICE, f'{recorded.LABEL_SLO}="{policy.AVAILABILITY}"', f'{recorded.LABEL_WINDOW}="1h"'
    )
    return time_series(
        "Errors over time",
        "Above the dashed line the error budget burns fast enough to page. When red: open failed traces from a point.",
        "percentunit",
        Query(expression=share(_failed(), _counted()), legend="errors"),
        Query(expression=f"max({limit})", legend="burns the budget", is_limit=True),
        links=[_FAILED_TRACES],
    )


def durations() -> Panel:
    return time_series(
        "Duration",
        "Dots are requests with a trace: click one. When p95 is above the promised line: the routes below show which.",
        "s",
        *[
            Query(expression=f"histogram_quantile({q}, {_buckets(by='le')}) >= 0", legend=legend)
            for q, legend in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
        ],
        Query(expression=dots(_BUCKET, ROUTES), exemplars=True),
        Query(expression=f"max({select(recorded.LATENCY_BOUND, SERVICE)})", legend="promised", is_limit=True),
        links=[_TRACES],
    )


def status_codes() -> Panel:
    return time_series(
        "Status codes",
        "What was answered. When 4xx grow: a caller has changed. When 5xx grow: we have, or what we call.",
        "reqps",
        Query(
            expression=total(rate(_COUNT, ROUTES), by=names.LABEL_STATUS_CODE),
            legend=f"{{{{{names.LABEL_STATUS_CODE}}}}}",
        ),
        stacked=True,
    )


def error_types() -> Panel:
    failed = rate(_COUNT, ROUTES, f'{names.LABEL_ERROR_TYPE}!=""')
    return time_series(
        "Errors by type",
        "A 5xx, an answer that broke off, or a caller who left. When callers leave: they have waited too long.",
        "reqps",
        Query(expression=total(failed, by=names.LABEL_ERROR_TYPE), legend=f"{{{{{names.LABEL_ERROR_TYPE}}}}}"),
        stacked=True,
        links=[_FAILED_TRACES],
    )


def heatmap() -> Panel:
    return heat(
        "Durations",
        "How many requests took how long; dots have a trace. When a second band appears: one path is slow, not all.",
        "s",
        Query(expression=_buckets(by="le"), legend="{{le}}"),
        Query(expression=dots(_BUCKET, ROUTES), exemplars=True),
    )


def routes() -> Panel:
    whole, failed = _counted(by=_ROUTE, over=RANGE), _failed(by=_ROUTE, over=RANGE)
    buckets = _buckets(by=f"{_ROUTE}, le", over=RANGE)
    return rows_of(
        "Routes",
        "Each route over the time that is shown. When one is slow or fails: open its traces from the row.",
        Column(title="Requests", expression=whole, unit="reqps"),
        Column(
            title="Errors",
            expression=share(failed, whole),
            unit="percentunit",
            limits=above(limits.REPLICA_ERROR_SHARE),
        ),
        Column(title="p50", expression=f"histogram_quantile(0.5, {buckets}) >= 0", unit="s"),
        Column(title="p95", expression=f"histogram_quantile(0.95, {buckets}) >= 0", unit="s"),
        Column(
            title="Busy",
            expression=total(rate(f"{_DURATION}_sum", ROUTES, window=RANGE), by=_ROUTE),
            unit="none",
        ),
        links=[_ROW_TRACES],
        sort_by="Busy",
    )


def last_week() -> Panel:
    return time_series(
        "Requests, and a week ago",
        "When today is far below last week at the same hour: callers cannot reach us, or have a problem of their own.",
        "reqps",
        Query(expression=total(rate(_COUNT, ROUTES)), legend="now"),
        Query(expression=total(f"rate({select(_COUNT, ROUTES)}[{WINDOW}] offset 1w)"), legend="a week ago"),
    )


def disconnects() -> Panel:
    left = total(rate(_COUNT, ROUTES, f'{names.LABEL_ERROR_TYPE}="{names.ERROR_CLIENT_DISCONNECT}"'))
    return time_series(
        "Callers who left",
        "The share of requests whose caller did not wait. When it rises: we are slower than callers' time-outs.",
        "percentunit",
        Query(expression=share(left, total(rate(_COUNT, ROUTES))), legend="left"),
    )


def first_bytes() -> Panel:
    return time_series(
        "Time to first byte, p95",
        "Of answers in several pieces. When it rises and the duration does not: the beginning is slow, not the stream.",
        "s",
        Query(
            expression=quantile(0.95, names.HTTP_SERVER_TIME_TO_FIRST_BYTE, ROUTES, by=names.LABEL_ROUTE),
            legend=f"{{{{{names.LABEL_ROUTE}}}}}",
        ),
    )


def request_bytes() -> Panel:
    return time_series(
        "Request bodies",
        "Bytes a second that come in. When it jumps: one caller sends large bodies; the route says which.",
        "Bps",
        Query(
            expression=total(rate(f"{names.HTTP_SERVER_REQUEST_BODY_SIZE}_sum", ROUTES), by=_ROUTE), legend=_OPERATION
        ),
        stacked=True,
    )


def response_bytes() -> Panel:
    return time_series(
        "Response bodies",
        "Bytes a second that go out. When it jumps without more requests: an answer has lost its limit or its paging.",
        "Bps",
        Query(
            expression=total(rate(f"{names.HTTP_SERVER_RESPONSE_BODY_SIZE}_sum", ROUTES), by=_ROUTE), legend=_OPERATION
        ),
        stacked=True,
    )


def lines() -> Panel:
    return log_lines(
        "Log lines",
        "Warnings and errors of the service; a trace id leads to the trace. When red elsewhere: read the newest first.",
        f'{{{names.LOG_SERVICE}="$service"}} | json | {names.LOG_LEVEL}=~"warning|error|critical"',
    )
