"""The row that compares a service's replicas: is it all of them, or one?"""

from grafana_foundation_sdk.models.dashboard import Panel

from grafana import limits
from grafana.panels import Row, time_series
from grafana.promql import BAD, COUNTED, INSTANCES, ROUTES, quantile, rate, select, share, total
from grafana.queries import Query
from grafana.thresholds import above
from obslib import names

_DURATION = names.HTTP_SERVER_REQUEST_DURATION
_COUNT = f"{_DURATION}_count"


def row() -> Row:
    """Part of Service."""
    return Row(title="Replicas", panels=[requests(), errors(), durations(), in_flight()], closed=True)


def requests() -> Panel:
    return time_series(
        "Requests by replica",
        "Lines lie on each other. When one is apart: the balancer sends it more, or it takes less.",
        "reqps",
        Query(expression=total(rate(_COUNT, ROUTES), by=names.LABEL_INSTANCE), legend="{{instance}}"),
        width=6,
    )


def errors() -> Panel:
    failed = total(rate(_COUNT, ROUTES, BAD), by=names.LABEL_INSTANCE)
    whole = total(rate(_COUNT, ROUTES, COUNTED), by=names.LABEL_INSTANCE)
    return time_series(
        "Errors by replica",
        "When one line is red and the others are not: take that replica out of the balancer, then look at its logs.",
        "percentunit",
        Query(expression=share(failed, whole), legend="{{instance}}"),
        limits=above(limits.REPLICA_ERROR_SHARE),
        width=6,
    )


def durations() -> Panel:
    return time_series(
        "Duration by replica, p95",
        "When one line is above the others: its event loop is blocked, or its machine is busy; see Python runtime.",
        "s",
        Query(expression=quantile(0.95, _DURATION, ROUTES, COUNTED, by=names.LABEL_INSTANCE), legend="{{instance}}"),
        width=6,
    )


def in_flight() -> Panel:
    active = select(names.HTTP_SERVER_ACTIVE_REQUESTS, INSTANCES)
    return time_series(
        "In flight by replica",
        "When one line grows and does not come back: requests hang in that replica; look at its oldest traces.",
        "none",
        Query(expression=total(active, by=names.LABEL_INSTANCE), legend="{{instance}}"),
        width=6,
    )
