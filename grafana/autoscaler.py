"""The row about who acts on what is desired: what the autoscaler decided, how fast, and what hindered it."""

from grafana_foundation_sdk.models.dashboard import Panel

from grafana.panels import Row, time_series
from grafana.promql import SERVICE, WINDOW, quantile, rate, select, total
from grafana.queries import Query
from prometheus import foreign

_DIRECTION = f"{{{{{foreign.LABEL_DIRECTION}}}}}"
_REASON = f"{{{{{foreign.LABEL_REASON}}}}}"
_PATH = f"{{{{{foreign.LABEL_PATH}}}}}"


def row() -> Row:
    """Part of Saturation & scaling."""
    return Row(title="The autoscaler", panels=[decisions(), reaction(), wakes(), troubles()])


def decisions() -> Panel:
    by = f"{foreign.LABEL_DIRECTION}, {foreign.LABEL_REASON}"
    counted = select(foreign.AUTOSCALER_DECISIONS, SERVICE, f'{foreign.LABEL_REASON}!="steady"')
    return time_series(
        "Decisions",
        "By reason, without those that all is well. When it holds for long: /v1/decisions says why, with its inputs.",
        "short",
        Query(expression=f"{total(f'increase({counted}[{WINDOW}])', by=by)}", legend=f"{_DIRECTION}: {_REASON}"),
        stacked=True,
        width=12,
    )


def reaction() -> Panel:
    return time_series(
        "Reaction, p95",
        "From being woken to an order that was accepted. When above a second: Prometheus or the actuator is slow.",
        "s",
        Query(
            expression=quantile(0.95, foreign.AUTOSCALER_REACTION, SERVICE, by=foreign.LABEL_PATH),
            legend=_PATH,
        ),
        width=12,
    )


def wakes() -> Panel:
    return time_series(
        "Reasons to look",
        "A second, by the way they came. When no alert comes while more is desired: Alertmanager does not get through.",
        "ops",
        Query(expression=total(rate(foreign.AUTOSCALER_WAKES, SERVICE), by=foreign.LABEL_PATH), legend=_PATH),
        width=12,
    )


def troubles() -> Panel:
    return time_series(
        "What hinders it",
        "A second: failed orders, refused webhooks, unusable answers of Prometheus. When not zero: its log says why.",
        "ops",
        Query(expression=total(rate(foreign.AUTOSCALER_ACTUATOR_FAILURES, SERVICE)), legend="orders failed"),
        Query(
            expression=total(rate(foreign.AUTOSCALER_REJECTED), by=foreign.LABEL_REASON), legend=f"webhook: {_REASON}"
        ),
        Query(
            expression=total(rate(foreign.AUTOSCALER_PROMETHEUS_FAILURES), by=foreign.LABEL_REASON),
            legend=f"Prometheus: {_REASON}",
        ),
        width=12,
    )
