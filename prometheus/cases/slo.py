"""Burning and exhausted budgets, and objectives that nobody counts."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from obslib import names
from prometheus import foreign, recorded
from prometheus.cases.case import (
    Alerting,
    Case,
    Value,
    answers,
    constant,
    errors,
    fires,
    quiet,
    rising,
    series,
    up,
    written,
)
from prometheus.durations import Duration
from prometheus.policy import AVAILABILITY, EDGE, LATENCY, Policy, Service
from prometheus.promql import bound, selector
from prometheus.windows import MIN_BAD_EVENTS, WINDOWS, Window

BURN = "SLOErrorBudgetBurn"
#: Requests a minute.
_BUSY = 600


def cases(policy: Policy) -> list[Case]:
    """For each service that promises something, each of its promises broken at once."""
    found: list[Case] = []
    for service in policy.promising():
        assert service.objectives is not None
        objectives = service.objectives.by_name()
        found += [_outage(service, slo) for slo in objectives]
        if AVAILABILITY in objectives:
            found += [_one_error(service), _restart(service), _idle(service), _given_up(service), *_missing(service)]
    for service in _first_available(policy):
        found += [*_burn_edges(service, WINDOWS[:2], "50m", 120), *_budget_edges(service)]
    return found


def _first_available(policy: Policy) -> list[Service]:
    return [s for s in policy.promising() if s.objectives and s.objectives.availability][:1]


def slow(policy: Policy) -> list[Case]:
    """Budgets that burn for hours, for each promise."""
    steady = [
        case
        for service in policy.promising()
        if service.objectives
        for slo, objective in service.objectives.by_name().items()
        for case in _steady(service, slo, objective)
    ]
    edges = [case for service in _first_available(policy) for case in _burn_edges(service, WINDOWS[2:], "420m", 430)]
    return [*steady, *edges]


def _events(service: Service, slo: str, good: str, bad: str) -> dict[str, str]:
    """A minute's good and bad events of an objective, in the notation of promtool."""
    if slo == EDGE:
        assert service.edge is not None
        edge = {"proxy": service.edge.frontend, "instance": "haproxy", "service": "haproxy"}
        return {
            written(foreign.HAPROXY_FRONTEND_RESPONSES, code="2xx", **edge): good,
            written(foreign.HAPROXY_FRONTEND_RESPONSES, code="5xx", **edge): bad,
        }
    if slo == AVAILABILITY:
        return {answers(service): good, errors(service): bad}
    assert service.objectives is not None
    assert service.objectives.latency_bound is not None
    le = bound(float(service.objectives.latency_bound.seconds))
    # Two routes: one is always fast, the other never. The bucket is there for both.
    fast, slow = {names.LABEL_ROUTE: "/fast"}, {names.LABEL_ROUTE: "/slow"}
    count, bucket = (f"{names.HTTP_SERVER_REQUEST_DURATION}_{kind}" for kind in ("count", "bucket"))
    return {
        series(count, service, **fast): good,
        series(bucket, service, **fast, le=le): good,
        series(count, service, **slow): bad,
        series(bucket, service, **slow, le=le): constant(0, 2000),
    }


def _every_window(service: Service, slo: str, at: str, *, firing: bool) -> list[Alerting]:
    check = fires if firing else quiet
    return [check(BURN, at, service=service.name, slo=slo, window=window.long) for window in WINDOWS]


def _outage(service: Service, slo: str) -> Case:
    healthy_then_none = f"0+{_BUSY}x70 {70 * _BUSY}+0x20 {70 * _BUSY}+{_BUSY}x60"
    none_then_failing = f"0x70 0+{_BUSY}x20 {20 * _BUSY}x60"
    about = {"service": service.name, "slo": slo, "window": WINDOWS[0].long}
    return Case(
        name=f"{service.name}, {slo}: an outage pages within minutes and is over soon after it has ended",
        series=_events(service, slo, healthy_then_none, none_then_failing),
        checks=[
            *_every_window(service, slo, "69m", firing=False),
            fires(BURN, "85m", **about),
            quiet(BURN, "105m", **about),
        ],
    )


def _steady(service: Service, slo: str, objective: Fraction) -> list[Case]:
    budget = float(1 - objective)
    about = {"service": service.name, "slo": slo}

    def story(times_too_fast: float) -> dict[str, str]:
        bad = budget * times_too_fast * _BUSY
        return _events(service, slo, rising(_BUSY - bad, 420), rising(bad, 420))

    left = selector(recorded.BUDGET_REMAINING, **about)
    return [
        Case(
            name=f"{service.name}, {slo}: a budget that burns twice as fast as it may is a ticket, no page",
            series=story(2),
            checks=[
                fires(BURN, "7h", **about, window="3d"),
                *(quiet(BURN, "7h", **about, window=window.long) for window in WINDOWS[:3]),
                fires("SLOBudgetExhausted", "7h", **about),
            ],
        ),
        Case(
            name=f"{service.name}, {slo}: half of the budget is what it is for",
            series=story(0.5),
            checks=[
                *_every_window(service, slo, "7h", firing=False),
                quiet("SLOBudgetExhausted", "7h", **about),
                Value(expression=f"round({left}, 0.01)", at="7h", value=0.5),
            ],
        ),
    ]


def _burn_edges(service: Service, windows: Sequence[Window], at: str, steps: int) -> Iterator[Case]:
    """A little over and under the limit of each window, and just enough bad events and not quite."""
    assert service.objectives is not None
    assert service.objectives.availability is not None
    budget = float(1 - service.objectives.availability)
    for window in windows:
        about = {"service": service.name, "slo": AVAILABILITY, "window": window.long}
        limit = float(window.factor) * budget
        enough = MIN_BAD_EVENTS / (Duration.parse(window.short).milliseconds / 60_000)
        for what, check, bad, every in (
            ("a little faster than its limit", fires, 1.04 * limit * _BUSY, _BUSY),
            ("a little slower than its limit", quiet, 0.96 * limit * _BUSY, _BUSY),
            ("with just enough bad events", fires, 1.05 * enough, 1.05 * enough),
            ("with not quite enough bad events", quiet, 0.95 * enough, 0.95 * enough),
        ):
            yield Case(
                name=f"{service.name}, {AVAILABILITY}: the budget of {window.long} burns {what}",
                series=_events(service, AVAILABILITY, rising(every - bad, steps), rising(bad, steps)),
                checks=[check(BURN, at, **about)],
            )


def _budget_edges(service: Service) -> list[Case]:
    """Thirty bad events a minute are a thousand after 35 minutes: a quarter of an hour later it is told."""
    about = {"service": service.name, "slo": AVAILABILITY}
    assert service.objectives is not None
    assert service.objectives.availability is not None
    bad = float(1 - service.objectives.availability) * _BUSY
    return [
        Case(
            name=f"{service.name}, {AVAILABILITY}: a budget is spent when a thousand events can tell",
            series=_events(service, AVAILABILITY, constant(0, 80), rising(30, 80)),
            checks=[quiet("SLOBudgetExhausted", "49m", **about), fires("SLOBudgetExhausted", "52m", **about)],
        ),
        *(
            Case(
                name=f"{service.name}, {AVAILABILITY}: a budget of which {share:.0%} are spent",
                series=_events(service, AVAILABILITY, rising(_BUSY - share * bad, 80), rising(share * bad, 80)),
                checks=[check("SLOBudgetExhausted", "60m", **about)],
            )
            for share, check in ((1.05, fires), (0.95, quiet))
        ),
    ]


def _one_error(service: Service) -> Case:
    about = {"service": service.name, "slo": AVAILABILITY}
    return Case(
        name=f"{service.name}: one error on a quiet service pages nobody",
        # The first when hardly anything has been asked, so that each window has more errors than it may have.
        series={answers(service): rising(2, 120), errors(service): "0x3 1x56 2x60"},
        checks=[
            *_every_window(service, AVAILABILITY, "6m", firing=False),
            *_every_window(service, AVAILABILITY, "8m", firing=False),
            *_every_window(service, AVAILABILITY, "64m", firing=False),
            *_every_window(service, AVAILABILITY, "110m", firing=False),
            quiet("SLOBudgetExhausted", "110m", **about),
        ],
    )


def _restart(service: Service) -> Case:
    return Case(
        name=f"{service.name}: a restart, which resets the counters, is no error",
        series={answers(service): f"0+{_BUSY}x60 0+{_BUSY}x60", errors(service): constant(0, 120)},
        checks=[
            *_every_window(service, AVAILABILITY, "62m", firing=False),
            Value(expression=f"{selector(recorded.ERROR_RATIO, service=service.name)} > bool 0", at="62m", value=0),
        ],
    )


def _idle(service: Service) -> Case:
    ratio = selector(recorded.slo_bad_ratio("5m"), service=service.name, slo=AVAILABILITY)
    return Case(
        name=f"{service.name}: without requests there is no ratio, not even one that is no number",
        series={up(service): constant(1, 60), answers(service): constant(7, 60), errors(service): constant(0, 60)},
        checks=[
            Value(expression=ratio, at="50m", value=None),
            *_every_window(service, AVAILABILITY, "50m", firing=False),
            quiet("SLOSignalMissing", "50m", service=service.name, slo=AVAILABILITY),
        ],
    )


def _given_up(service: Service) -> Case:
    gone = answers(service, error_type=names.ERROR_CLIENT_DISCONNECT)
    cut = answers(service, error_type=names.ERROR_INCOMPLETE_RESPONSE)
    return Case(
        name=f"{service.name}: what callers give up counts for nothing, what the service cuts off counts as bad",
        series={answers(service): rising(300, 60), gone: rising(300, 60), cut: rising(100, 60)},
        checks=[
            Value(
                expression=selector(recorded.slo_bad_ratio("5m"), service=service.name, slo=AVAILABILITY),
                at="50m",
                value=0.25,
            )
        ],
    )


def _missing(service: Service) -> list[Case]:
    about = {"service": service.name, "slo": AVAILABILITY}
    return [
        Case(
            name=f"{service.name}: scraped, but its requests are not counted",
            series={up(service): constant(1, 60)},
            checks=[
                quiet("SLOSignalMissing", "9m", **about),
                fires("SLOSignalMissing", "12m", **about),
                *([fires("SLOSignalMissing", "30m", **{**about, "slo": LATENCY})] if _has_latency(service) else []),
            ],
        ),
        Case(
            name=f"{service.name}: of a service that is down no signal is missed",
            series={up(service): constant(0, 60)},
            checks=[quiet("SLOSignalMissing", "50m", **about)],
        ),
    ]


def _has_latency(service: Service) -> bool:
    return service.objectives is not None and service.objectives.latency is not None
