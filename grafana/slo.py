"""SLO: do we keep what we have promised, and how long will the budget last?"""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana import limits, uids
from grafana.boards import board
from grafana.links import traces
from grafana.panels import Row, bars, number, time_series
from grafana.promql import BAD, RANGE, SERVICE, select, total
from grafana.queries import Query
from grafana.thresholds import above, below
from obslib import names
from prometheus import policy, recorded
from prometheus.windows import WINDOWS

_CHOSEN = f'{SERVICE}, {recorded.LABEL_SLO}=~"$slo"'
_BY_SLO = f"{names.LABEL_NAMESPACE}, {names.LABEL_SERVICE}, {recorded.LABEL_SLO}"
_ON_SLO = f"on ({_BY_SLO})"
_BUDGET = select(recorded.ERROR_BUDGET, _CHOSEN)
_SECONDS_A_DAY = 86_400


def dashboard() -> Dashboard:
    """Objectives, budgets and burn rates."""
    return board(
        uids.SLO,
        "Do we keep what we have promised, and how long will the budget last?",
        [
            Row(title="Now", panels=[left(), objective(), exhaustion(), period(), events()]),
            Row(title="Budget", panels=[budget(), bad_routes()]),
            Row(title="How fast it burns", panels=[burn(window.long, window.short) for window in WINDOWS]),
            Row(title="What is counted", panels=[counted(), bad_events(), edge(), probes()]),
        ],
    )


def left() -> Panel:
    return number(
        "Budget left",
        "Of the period's error budget. When red, more has failed than was promised: reliability goes before features.",
        "percentunit",
        Query(expression=select(recorded.BUDGET_REMAINING, _CHOSEN), legend="{{slo}}"),
        limits=below(0, amber=0.25),
        width=8,
        decimals=1,
    )


def objective() -> Panel:
    return number(
        "Objective",
        "The share of good answers that is promised; it stands in prometheus/policy.yml. Never red.",
        "percentunit",
        Query(expression=select(recorded.OBJECTIVE, _CHOSEN), legend="{{slo}}"),
        width=4,
        decimals=2,
    )


def exhaustion() -> Panel:
    burning = f"{select(recorded.slo_bad_ratio('6h'), _CHOSEN)} / {_ON_SLO} {_BUDGET}"
    period = f"on ({names.LABEL_NAMESPACE}, {names.LABEL_SERVICE}) group_left () {select(recorded.PERIOD, SERVICE)}"
    return number(
        "Days to exhaustion",
        "At the pace of the last six hours; nothing is shown where nothing burns. When red: stop what has begun it.",
        "d",
        Query(
            expression=f"{select(recorded.BUDGET_REMAINING, _CHOSEN)} / {_ON_SLO} ({burning} > 0)"
            f" * {period} / {_SECONDS_A_DAY}",
            legend="{{slo}}",
        ),
        limits=below(1, amber=3),
        width=4,
        decimals=1,
    )


def period() -> Panel:
    return number(
        "Period",
        "The budget is for a window of this length that moves along: what is older drops out. Never red.",
        "s",
        Query(expression=select(recorded.PERIOD, SERVICE)),
        width=4,
    )


def events() -> Panel:
    return number(
        "Events in the period",
        "What the budget is a share of. When there are few: one error weighs much, and burn alerts wait for five.",
        "short",
        Query(expression=select(recorded.PERIOD_EVENTS, _CHOSEN), legend="{{slo}}"),
        width=4,
        decimals=0,
    )


def budget() -> Panel:
    return time_series(
        "Error budget left",
        "Below zero the promise is broken. When it falls steeply: the marks show whether a deploy began it.",
        "percentunit",
        Query(expression=select(recorded.BUDGET_REMAINING, _CHOSEN), legend="{{slo}}"),
        limits=below(0),
        min_value=None,
        width=16,
    )


def bad_routes() -> Panel:
    failed = f"increase({select(f'{names.HTTP_SERVER_REQUEST_DURATION}_count', SERVICE, BAD)}[{RANGE}])"
    by = f"{names.LABEL_METHOD}, {names.LABEL_ROUTE}"
    return bars(
        "Failed answers by route",
        "Where availability is lost in the time that is shown. When one bar leads: open its failed traces.",
        "short",
        Query(
            expression=f"sort_desc({total(failed, by=by)})",
            legend=f"{{{{{names.LABEL_METHOD}}}}} {{{{{names.LABEL_ROUTE}}}}}",
        ),
        links=[traces("Failed traces", failed=True)],
    )


def burn(long: str, short: str) -> Panel:
    limit = select(recorded.BURN_LIMIT, _CHOSEN, f'{recorded.LABEL_WINDOW}="{long}"')
    return time_series(
        f"Burn rate over {long} and {short}",
        "Times as fast as the budget allows; 1 spends it exactly. When both lines are above the dashed one, it alerts.",
        "none",
        *[
            Query(
                expression=f"{select(recorded.slo_bad_ratio(window), _CHOSEN)} / {_ON_SLO} {_BUDGET}",
                legend=f"{{{{slo}}}} {window}",
            )
            for window in (long, short)
        ],
        Query(expression=f"max({limit} / on ({_BY_SLO}) group_left () {_BUDGET})", legend="alerts", is_limit=True),
        width=12,
    )


def counted() -> Panel:
    return time_series(
        "Events in five minutes",
        "What counts towards each objective. When it is zero: the objective is not measured, and cannot be missed.",
        "short",
        Query(expression=select(recorded.slo_events("5m"), _CHOSEN), legend="{{slo}}"),
        width=6,
    )


def bad_events() -> Panel:
    return time_series(
        "Bad events in five minutes",
        "What breaks each objective. When latency has more than availability: it is slow, not failing.",
        "short",
        Query(expression=select(recorded.slo_bad_events("5m"), _CHOSEN), legend="{{slo}}"),
        width=6,
    )


def edge() -> Panel:
    bad = recorded.slo_bad_ratio("5m")
    seen = {name: select(bad, SERVICE, f'{recorded.LABEL_SLO}="{name}"') for name in (policy.EDGE, policy.AVAILABILITY)}
    on = f"on ({names.LABEL_NAMESPACE}, {names.LABEL_SERVICE})"
    return time_series(
        "Edge against service",
        "How far the balancer's share of errors is from the service's. When red: callers get errors we do not see.",
        "percentunit",
        Query(expression=f"abs({seen[policy.EDGE]} - {on} {seen[policy.AVAILABILITY]})", legend="difference"),
        limits=above(limits.EDGE_DIFFERENCE_SHARE),
        width=6,
    )


def probes() -> Panel:
    return time_series(
        "Probes that succeeded",
        "A request from outside, every few seconds. When red: users cannot reach the service, whatever it says itself.",
        "percentunit",
        Query(expression=select(recorded.PROBE_SUCCESS, SERVICE), legend="{{service}}"),
        limits=below(limits.PROBE_SUCCESS_SHARE),
        max_value=1,
        width=6,
    )
