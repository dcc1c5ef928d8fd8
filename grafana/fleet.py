"""Fleet: is anything wrong anywhere, and with which service does one begin?"""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana import limits, uids
from grafana.boards import board
from grafana.links import of_row
from grafana.panels import Row, number, rows_of, time_series
from grafana.promql import BY_SERVICE, FOR_PEOPLE, NAMESPACES, select, total
from grafana.queries import Column, Query
from grafana.thresholds import above, below
from obslib import names
from prometheus import foreign, recorded

_TO_SERVICE = of_row("Requests of ${__data.fields.service}", uids.SERVICE)
_TO_SLO = of_row("SLO of ${__data.fields.service}", uids.SLO)
_TO_SCALING = of_row("Scaling of ${__data.fields.service}", uids.SCALING)
_SERIES_TO_SERVICE = of_row("Requests of ${__field.labels.service}", uids.SERVICE, service="${__field.labels.service}")


def dashboard() -> Dashboard:
    """The home page."""
    return board(
        uids.FLEET,
        "Is anything wrong anywhere, and with which service does one begin?",
        [
            Row(title="Now", panels=[down(), pages(), tickets(), requests(), errors(), replicas()]),
            Row(title="Services", panels=[services()]),
            Row(title="Alerts", panels=[firing()]),
            Row(
                title="Over time",
                panels=[
                    requests_by_service(),
                    errors_by_service(),
                    durations_by_service(),
                    budgets(),
                    cpu_by_service(),
                    replicas_by_service(),
                ],
            ),
        ],
    )


def down() -> Panel:
    known = f"count by ({BY_SERVICE}) ({select(foreign.UP, NAMESPACES)})"
    up = f"count by ({BY_SERVICE}) ({select(foreign.UP, NAMESPACES)} == 1)"
    return number(
        "Services down",
        "Services none of whose replicas answers a scrape. When red: look below which, then at its processes' logs.",
        "none",
        Query(expression=f"count({known} unless {up}) or vector(0)"),
        limits=above(1),
    )


def pages() -> Panel:
    return number(
        "Pages",
        "Alerts firing that users feel. When red: open the alert below; its runbook says what to do.",
        "none",
        Query(expression=f"{_firing('page')} or vector(0)"),
        limits=above(1),
    )


def tickets() -> Panel:
    return number(
        "Tickets",
        "Alerts firing that can wait until the morning. When amber: read them below before the day ends.",
        "none",
        Query(expression=f"{_firing('ticket')} or vector(0)"),
        limits=above(10, amber=1),
    )


def _firing(severity: str) -> str:
    wanted = f'{foreign.LABEL_SEVERITY}="{severity}"'
    return f"count({select(foreign.ALERTS, foreign.FIRING, wanted, NAMESPACES)})"


def requests() -> Panel:
    return number(
        "Requests",
        "All services together. When it falls at once: nothing fails because nothing asks; look at the load balancer.",
        "reqps",
        Query(expression=total(select(recorded.REQUESTS, NAMESPACES))),
    )


def errors() -> Panel:
    requests = select(recorded.REQUESTS, NAMESPACES)
    failed = f"{select(recorded.ERROR_RATIO, NAMESPACES)} * {requests}"
    return number(
        "Errors",
        "The share of all answers that broke their promise. When it rises: the table shows whose they are.",
        "percentunit",
        Query(expression=f"sum({failed}) / (sum({requests}) > 0)"),
        decimals=2,
    )


def replicas() -> Panel:
    return number(
        "Replicas up",
        "Processes that answer scrapes. When it falls without a scale-in: see which service has restarts or is down.",
        "none",
        Query(expression=total(select(recorded.UP, NAMESPACES))),
    )


def services() -> Panel:
    alerts = f"count by ({BY_SERVICE}) ({select(foreign.ALERTS, FOR_PEOPLE, NAMESPACES)})"
    policy = f"max by ({BY_SERVICE}) ({select(recorded.POLICY, NAMESPACES)})"
    remaining = f"min by ({BY_SERVICE}) ({select(recorded.BUDGET_REMAINING, NAMESPACES)})"
    return rows_of(
        "Services",
        "A row a service. When something is red: begin with the least budget left, and open the service from its row.",
        Column(title="Firing", expression=f"{alerts} or 0 * {policy}", unit="none", limits=above(1)),
        Column(title="Least budget left", expression=remaining, unit="percentunit", limits=below(0, amber=0.25)),
        Column(title="Requests", expression=select(recorded.REQUESTS, NAMESPACES), unit="reqps"),
        Column(title="Errors", expression=select(recorded.ERROR_RATIO, NAMESPACES), unit="percentunit"),
        Column(title="p95", expression=select(recorded.P95, NAMESPACES), unit="s"),
        Column(
            title="CPU of usable",
            expression=select(recorded.CPU, NAMESPACES),
            unit="percentunit",
            limits=above(limits.CPU_SHARE),
        ),
        Column(title="Replicas up", expression=select(recorded.UP, NAMESPACES), unit="none", limits=below(1)),
        Column(title="Replicas desired", expression=select(recorded.SCALE_DESIRED, NAMESPACES), unit="none"),
        links=[_TO_SERVICE, _TO_SLO, _TO_SCALING],
        sort_by="Firing",
    )


def firing() -> Panel:
    by = f"{BY_SERVICE}, {foreign.LABEL_ALERT}, {foreign.LABEL_SEVERITY}"
    return rows_of(
        "Firing alerts",
        "What fires now, for people. When there is a page: its runbook is linked in Alertmanager and in the message.",
        Column(
            title="Series",
            expression=f"count by ({by}) ({select(foreign.ALERTS, FOR_PEOPLE, NAMESPACES)})",
            unit="none",
        ),
        links=[_TO_SERVICE, _TO_SLO, _TO_SCALING],
        sort_by="severity",
    )


def requests_by_service() -> Panel:
    return time_series(
        "Requests by service",
        "Requests a second. When one service's line falls and its callers' do not: its balancer or its DNS.",
        "reqps",
        Query(expression=select(recorded.REQUESTS, NAMESPACES), legend="{{service}}"),
        links=[_SERIES_TO_SERVICE],
    )


def errors_by_service() -> Panel:
    return time_series(
        "Errors by service",
        "The share of answers that failed. When several rise together: the one that they all call is the cause.",
        "percentunit",
        Query(expression=select(recorded.ERROR_RATIO, NAMESPACES), legend="{{service}}"),
        links=[_SERIES_TO_SERVICE],
    )


def durations_by_service() -> Panel:
    return time_series(
        "Duration by service, p95",
        "19 of 20 answers took less. When it rises: compare with the requests: more load, or a regression?",
        "s",
        Query(expression=select(recorded.P95, NAMESPACES), legend="{{service}}"),
        links=[_SERIES_TO_SERVICE],
    )


def budgets() -> Panel:
    return time_series(
        "Error budget left",
        "What may still fail in the period. When it is gone: no risky deploys until the line has recovered.",
        "percentunit",
        Query(expression=select(recorded.BUDGET_REMAINING, NAMESPACES), legend="{{service}} {{slo}}"),
        limits=below(0),
        min_value=None,
    )


def cpu_by_service() -> Panel:
    return time_series(
        "CPU of usable cores by service",
        "A Python process uses one core at most. When red: add replicas, or find what has become dearer.",
        "percentunit",
        Query(expression=select(recorded.CPU, NAMESPACES), legend="{{service}}"),
        limits=above(limits.CPU_SHARE),
    )


def replicas_by_service() -> Panel:
    return time_series(
        "Replicas by service",
        "Replicas that answer scrapes. When a line falls and no scaling mark stands there: look for crashes.",
        "none",
        Query(
            expression=total(select(foreign.UP, NAMESPACES, f'{names.LABEL_SERVICE}!=""'), by=BY_SERVICE),
            legend="{{service}}",
        ),
        stacked=True,
    )
