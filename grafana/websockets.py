"""The row about WebSockets, which live for minutes where requests live for milliseconds."""

from grafana_foundation_sdk.models.dashboard import Panel

from grafana.panels import Row, time_series
from grafana.promql import ROUTES, quantile, rate, select, total
from grafana.queries import Query
from obslib import names

_ROUTE = names.LABEL_ROUTE
_BY_ROUTE = f"{{{{{_ROUTE}}}}}"


def row() -> Row:
    """Part of Service."""
    return Row(title="WebSockets", panels=[open_now(), messages(), durations(), closed()])


def open_now() -> Panel:
    return time_series(
        "Open WebSockets",
        "By route. When the line falls at once: a replica or a proxy has gone; watch whether all come back at once.",
        "none",
        Query(expression=total(select(names.WEBSOCKET_SERVER_ACTIVE_CONNECTIONS, ROUTES), by=_ROUTE), legend=_BY_ROUTE),
        stacked=True,
        width=6,
    )


def messages() -> Panel:
    by = f"{_ROUTE}, {names.LABEL_DIRECTION}"
    return time_series(
        "WebSocket messages",
        "A second, received and sent. When sent falls and received does not: the service is stuck, or its source is.",
        "ops",
        Query(
            expression=total(rate(names.WEBSOCKET_SERVER_MESSAGES, ROUTES), by=by),
            legend=f"{_BY_ROUTE} {{{{{names.LABEL_DIRECTION}}}}}",
        ),
        width=6,
    )


def durations() -> Panel:
    return time_series(
        "WebSocket lifetime, p50",
        "Of those that have ended. When it falls to a round number: a proxy's idle time-out cuts them; send pings.",
        "s",
        Query(
            expression=quantile(0.5, names.WEBSOCKET_SERVER_CONNECTION_DURATION, ROUTES, by=_ROUTE), legend=_BY_ROUTE
        ),
        width=6,
    )


def closed() -> Panel:
    count = f"{names.WEBSOCKET_SERVER_CONNECTION_DURATION}_count"
    return time_series(
        "WebSockets closed",
        "A second, by close code. When 1006 or 1011 grow: the network cuts them, or the application fails.",
        "ops",
        Query(
            expression=total(rate(count, ROUTES), by=names.LABEL_CLOSE_CODE),
            legend=f"{{{{{names.LABEL_CLOSE_CODE}}}}}",
        ),
        stacked=True,
        width=6,
    )
