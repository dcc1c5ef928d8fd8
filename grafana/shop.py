"""Demo shop: does the shop earn money, and if not, where do customers get stuck?"""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from demo_service import metrics
from grafana import limits, uids
from grafana.boards import board
from grafana.panels import Row, number, time_series
from grafana.promql import NAMESPACES, RANGE, quantile, rate, select, share, total
from grafana.queries import Query
from grafana.thresholds import above

_MINUTE = 60


def dashboard() -> Dashboard:
    """The demo's own dashboard: what its business wants to know."""
    return board(
        uids.SHOP,
        "Does the shop earn money, and if not, where do customers get stuck?",
        [
            Row(title="Now", panels=[orders(), revenue(), customers(), failing(), backlog(), turned_away()]),
            Row(title="Orders and money", panels=[orders_by_status(), revenue_by_minute(), active_customers()]),
            Row(title="Payments", panels=[failures(), failure_share(), authorisations()]),
            Row(title="Fulfilment", panels=[jobs_waiting(), jobs(), job_duration(), published()]),
            Row(title="What customers meet", panels=[slots(), refused(), cache()]),
        ],
    )


def orders() -> Panel:
    return number(
        "Orders",
        "Accepted in the time that is shown. When far below what is usual: see whether requests, or payments, fail.",
        "short",
        Query(expression=total(_increase(metrics.ORDERS))),
        decimals=0,
    )


def revenue() -> Panel:
    return number(
        "Revenue",
        "Authorised in the time that is shown. When it falls and orders do not: payments are the problem.",
        "currencyEUR",
        Query(expression=total(_increase(metrics.REVENUE))),
        decimals=0,
    )


def customers() -> Panel:
    return number(
        "Active customers",
        "Who have ordered in the last five minutes. When it falls and requests do not: they look, and do not buy.",
        "none",
        Query(expression=f"max({select(metrics.ACTIVE_CUSTOMERS, NAMESPACES)})"),
    )


def failing() -> Panel:
    return number(
        "Payments failing",
        "Calls without an authorisation, of all. When red: see the reasons below; declined is the customer's bank.",
        "percentunit",
        Query(expression=_failure_share()),
        limits=above(limits.PAYMENT_FAILURE_SHARE),
        decimals=1,
    )


def backlog() -> Panel:
    return number(
        "To fulfil",
        "Orders accepted and not yet fulfilled. When it only grows: the worker is down, or too slow for the orders.",
        "short",
        Query(expression=f"max({select(metrics.BACKLOG, NAMESPACES)})"),
    )


def turned_away() -> Panel:
    refused = f"{total(_increase(metrics.RATE_LIMITED))} + {total(_increase(metrics.OVERLOADED))}"
    return number(
        "Turned away",
        "Requests answered 429 or 503 in the time that is shown. When many: a customer's script, or too few replicas.",
        "short",
        Query(expression=refused),
        decimals=0,
    )


def orders_by_status() -> Panel:
    return time_series(
        "Orders a minute",
        "By what they were accepted as. When payment_pending grows: payments is away; the worker asks again later.",
        "short",
        Query(expression=f"{total(rate(metrics.ORDERS, NAMESPACES), by='status')} * {_MINUTE}", legend="{{status}}"),
        stacked=True,
    )


def revenue_by_minute() -> Panel:
    return time_series(
        "Revenue a minute",
        "Authorised at once, or later by the worker. When it falls: compare with the orders beside it.",
        "currencyEUR",
        Query(expression=f"{total(rate(metrics.REVENUE, NAMESPACES))} * {_MINUTE}", legend="revenue"),
    )


def active_customers() -> Panel:
    return time_series(
        "Active customers over time",
        "Who have ordered in the last five minutes. When it falls to zero: nobody can order; look at the errors.",
        "short",
        Query(expression=f"max({select(metrics.ACTIVE_CUSTOMERS, NAMESPACES)})", legend="customers"),
    )


def failures() -> Panel:
    return time_series(
        "Payments without authorisation",
        "A minute, by reason. When circuit_open: payments is left alone for a while, since it did not answer.",
        "short",
        Query(
            expression=f"{total(rate(metrics.PAYMENT_FAILURES, NAMESPACES), by='reason')} * {_MINUTE}",
            legend="{{reason}}",
        ),
        stacked=True,
    )


def failure_share() -> Panel:
    return time_series(
        "Payments failing over time",
        "The share of calls without an authorisation. When red: open payments' own Service dashboard.",
        "percentunit",
        Query(expression=_failure_share(), legend="failing"),
        limits=above(limits.PAYMENT_FAILURE_SHARE),
    )


def authorisations() -> Panel:
    return time_series(
        "What payments answers",
        "A minute, by outcome, as payments counts them. When it is less than the shop asks: calls do not arrive.",
        "short",
        Query(
            expression=f"{total(rate(metrics.AUTHORISATIONS, NAMESPACES), by='outcome')} * {_MINUTE}",
            legend="{{outcome}}",
        ),
        stacked=True,
    )


def jobs_waiting() -> Panel:
    return time_series(
        "Orders to fulfil",
        "Accepted and not yet fulfilled. When it grows: compare the jobs finished beside it; add workers or wake them.",
        "short",
        Query(expression=f"max({select(metrics.BACKLOG, NAMESPACES)})", legend="waiting"),
        width=6,
    )


def jobs() -> Panel:
    return time_series(
        "Jobs a minute",
        "By outcome. When postponed: payments is away. When failed: the worker's log has the reason.",
        "short",
        Query(expression=f"{total(rate(metrics.JOBS, NAMESPACES), by='outcome')} * {_MINUTE}", legend="{{outcome}}"),
        stacked=True,
        width=6,
    )


def job_duration() -> Panel:
    return time_series(
        "Jobs, p95",
        "How long one takes. When it rises: the database or payments is slower; see the worker's Dependencies.",
        "s",
        Query(expression=quantile(0.95, metrics.JOB_DURATION, NAMESPACES), legend="p95"),
        width=6,
    )


def published() -> Panel:
    return time_series(
        "Jobs handed on",
        "A minute, from the outbox to the broker. When failed: the broker is away; nothing is lost, it is only late.",
        "short",
        Query(
            expression=f"{total(rate(metrics.PUBLISHED, NAMESPACES), by='outcome')} * {_MINUTE}", legend="{{outcome}}"
        ),
        width=6,
    )


def slots() -> Panel:
    busy, all_of_them = (total(select(name, NAMESPACES)) for name in (metrics.SLOTS_BUSY, metrics.SLOTS))
    return time_series(
        "Slots busy",
        "Of the requests that replicas can work on at once. When at 100 %: requests wait, and replicas are added.",
        "percentunit",
        Query(expression=f"{busy} / ({all_of_them} > 0)", legend="busy"),
        limits=above(1, amber=0.8),
        max_value=1,
    )


def refused() -> Panel:
    return time_series(
        "Turned away a minute",
        "429: over the rate limit. 503: too many waiting already. When store errors: the limit lets everybody through.",
        "short",
        *[
            Query(expression=f"{total(rate(metric, NAMESPACES))} * {_MINUTE}", legend=legend)
            for metric, legend in (
                (metrics.RATE_LIMITED, "429"),
                (metrics.OVERLOADED, "503"),
                (metrics.RATE_LIMIT_ERRORS, "store errors"),
            )
        ],
    )


def cache() -> Panel:
    hits = total(rate(metrics.CACHE_LOOKUPS, NAMESPACES, 'result="hit"'))
    return time_series(
        "Cache hits",
        "The share of lookups. When it falls: the cache was emptied, or is away; the database answers instead.",
        "percentunit",
        Query(expression=share(hits, total(rate(metrics.CACHE_LOOKUPS, NAMESPACES))), legend="hits"),
        max_value=1,
    )


def _increase(metric: str) -> str:
    return f"increase({select(metric, NAMESPACES)}[{RANGE}])"


def _failure_share() -> str:
    failed = total(rate(metrics.PAYMENT_FAILURES, NAMESPACES))
    asked = total(rate(metrics.AUTHORISATIONS, NAMESPACES))
    # What got no answer, payments has not counted: it is a call all the same.
    unanswered = total(rate(metrics.PAYMENT_FAILURES, NAMESPACES, 'reason=~"unavailable|circuit_open"'))
    return f"{failed} / (({asked} + {unanswered}) > 0)"
