"""Objectives: events counted, budgets, and how fast they burn."""

from fractions import Fraction

from obslib import names
from prometheus import foreign, links, recorded
from prometheus.durations import Clock, Duration, decimal
from prometheus.policy import AVAILABILITY, EDGE, LATENCY, Policy, Service
from prometheus.promql import BAD, BY_SERVICE, COUNTED, ON_SERVICE, SERVICE, bound, lines, selector
from prometheus.rules import PIPELINE, SYMPTOM, TICKET, Alert, Group, Record
from prometheus.windows import MIN_BAD_EVENTS, WINDOWS

_ON_SLO = f"on ({SERVICE}, slo)"
_COUNT = f"{names.HTTP_SERVER_REQUEST_DURATION}_count"
_BUCKET = f"{names.HTTP_SERVER_REQUEST_DURATION}_bucket"
#: Long enough that a handful of requests after a quiet week exhausts nothing.
_MIN_PERIOD_EVENTS = 1000

#: These windows add up what the shortest has recorded, the others are counted from the services' own counters: reading
#: days of every route's counters at each evaluation is dear, and averaging ratios is wrong.
_ADDED_UP = ("2h", "6h", "1d", "3d")


def groups(policy: Policy, clock: Clock) -> list[Group]:
    """Nothing without a service that promises something."""
    promising = policy.promising()
    if not promising:
        return []
    slow = [*_added_up(clock), *_remaining(promising, clock)]
    return [
        Group(name="obslib_slo_policy", interval=clock("15s"), rules=_promises(promising, clock)),
        # Half as often as what it is compared with: it reads most, and changes least.
        Group(name="obslib_slo_hour", interval=clock("30s"), rules=_windows(promising, clock, ("1h",))),
        Group(
            name="obslib_slo_events",
            interval=clock("15s"),
            rules=[*_windows(promising, clock, ("5m", "30m")), *_burn_alerts(clock)],
        ),
        Group(name="obslib_slo_long_windows", interval=clock("1m"), rules=[*slow, *_budget_alerts(clock)]),
    ]


def _promises(services: list[Service], clock: Clock) -> list[Record]:
    rules: list[Record] = []
    for service in services:
        objectives = service.objectives
        assert objectives is not None
        for name, objective in objectives.by_name().items():
            labels = {**service.identity, "slo": name}
            budget = 1 - objective
            rules += [
                _constant(recorded.OBJECTIVE, objective, labels),
                _constant(recorded.ERROR_BUDGET, budget, labels),
                *(
                    _constant(recorded.BURN_LIMIT, window.factor * budget, {**labels, "window": window.long})
                    for window in WINDOWS
                ),
            ]
        rules.append(_constant(recorded.PERIOD, clock(objectives.period).seconds, service.identity))
        if objectives.latency_bound:
            rules.append(_constant(recorded.LATENCY_BOUND, objectives.latency_bound.seconds, service.identity))
    return rules


def _constant(name: str, value: Fraction, labels: dict[str, str]) -> Record:
    return Record(name=name, expression=f"vector({decimal(value)})", labels=labels)


def _windows(services: list[Service], clock: Clock, windows: tuple[str, ...]) -> list[Record]:
    rules: list[Record] = []
    for window in windows:
        for service in services:
            assert service.objectives is not None
            for slo in service.objectives.by_name():
                events, bad = _counted(service, slo, window, clock)
                labels = {**service.identity, "slo": slo}
                rules += [
                    Record(name=recorded.slo_events(window), expression=events, labels=labels),
                    Record(name=recorded.slo_bad_events(window), expression=bad, labels=labels),
                ]
        rules.append(_ratio(window))
    return rules


def _ratio(window: str) -> Record:
    return Record(
        name=recorded.slo_bad_ratio(window),
        expression=f"{recorded.slo_bad_events(window)} / ({recorded.slo_events(window)} > 0)",
    )


def _counted(service: Service, slo: str, window: str, clock: Clock) -> tuple[str, str]:
    """
    The events of an objective in a window, and the bad ones: zero, not absent, before the first.

    Each counter is read once: what a rule before has recorded at this moment is taken from there.
    """
    objectives, length = service.objectives, clock(window)
    assert objectives is not None
    counted = selector(recorded.slo_events(window), **service.identity, slo=slo)
    if slo == EDGE:
        assert service.edge is not None
        answered = f'proxy="{service.edge.frontend}"'
        events = _increase(foreign.HAPROXY_FRONTEND_RESPONSES, length, answered, by="")
        bad = _increase(foreign.HAPROXY_FRONTEND_RESPONSES, length, answered, 'code="5xx"', by="")
        return events, f"{bad}\nor on ()\n0 * {counted}"
    own = [f'{label}="{value}"' for label, value in service.identity.items()]
    events = _increase(_COUNT, length, COUNTED, *own)
    if slo == LATENCY:
        assert objectives.latency_bound is not None
        if objectives.availability is not None:
            events = selector(recorded.slo_events(window), **service.identity, slo=AVAILABILITY)
        le = f'le="{bound(float(objectives.latency_bound.seconds))}"'
        return events, f"{counted}\n- {ON_SERVICE}\n{_increase(_BUCKET, length, COUNTED, le, *own)}"
    return events, f"{_increase(_COUNT, length, BAD, *own)}\nor {ON_SERVICE}\n0 * {counted}"


def _increase(metric: str, window: Duration, *matchers: str, by: str = f"{BY_SERVICE} ") -> str:
    return f"sum {by}(increase({selector(metric, *matchers)}[{window}]))"


def _added_up(clock: Clock) -> list[Record]:
    step = clock("5m")
    return [
        rule
        for window in _ADDED_UP
        for rule in (
            *(
                Record(
                    name=name(window),
                    # A subquery looks at multiples of its step, so the five minutes neither overlap nor leave gaps.
                    expression=f"sum_over_time({name('5m')}[{clock(window)}:{step}])",
                )
                for name in (recorded.slo_events, recorded.slo_bad_events)
            ),
            _ratio(window),
        )
    ]


def _remaining(services: list[Service], clock: Clock) -> list[Record]:
    rules: list[Record] = []
    step = clock("5m")
    for service in services:
        assert service.objectives is not None
        span = f"[{clock(service.objectives.period)}:{step}]"
        events = f"sum_over_time({selector(recorded.slo_events('5m'), **service.identity)}{span})"
        bad = f"sum_over_time({selector(recorded.slo_bad_events('5m'), **service.identity)}{span})"
        rules += [
            Record(name=recorded.PERIOD_EVENTS, expression=events, labels=service.identity),
            Record(
                name=recorded.BUDGET_REMAINING,
                labels=service.identity,
                expression=f"1 - {bad}\n/ ({events} > 0)\n/ {_ON_SLO} {recorded.ERROR_BUDGET}",
            ),
        ]
    return rules


def _burn_alerts(clock: Clock) -> list[Alert]:
    alerts = []
    for window in WINDOWS:
        limit = selector(recorded.BURN_LIMIT, window=window.long)
        factor = decimal(window.factor)
        long, short = clock(window.long), clock(window.short)
        alerts.append(
            Alert(
                name="SLOErrorBudgetBurn",
                expression=lines(f"""
                    {recorded.slo_bad_ratio(window.long)} > {_ON_SLO} {limit}
                    and {_ON_SLO}
                    {recorded.slo_bad_ratio(window.short)} > {_ON_SLO} {limit}
                    and {_ON_SLO}
                    {recorded.slo_bad_events(window.short)} >= {MIN_BAD_EVENTS}
                """),
                severity=window.severity,
                kind=SYMPTOM,
                labels={"window": window.long},
                summary="{{ $labels.service }} burns its {{ $labels.slo }} budget "
                f"{f'{factor} times ' if window.factor > 1 else ''}as fast as it may, or faster",
                description="{{ $value | humanizePercentage }} of the events of the last "
                f"{long} broke the {{{{ $labels.slo }}}} objective, and those of the last {short} still do.",
                dashboard=links.SLO,
                runbook="slo",
            )
        )
    return alerts


def _budget_alerts(clock: Clock) -> list[Alert]:
    return [
        Alert(
            name="SLOBudgetExhausted",
            expression=lines(f"""
                1 - {recorded.BUDGET_REMAINING} >= 1
                and {_ON_SLO}
                {recorded.PERIOD_EVENTS} > {_MIN_PERIOD_EVENTS}
            """),
            lasting=clock("15m"),
            severity=TICKET,
            kind=SYMPTOM,
            summary="{{ $labels.service }} has spent its {{ $labels.slo }} budget",
            description='It has spent {{ $value | printf "%.2f" }} times the budget of the period. Until it recovers, '
            "reliability goes before features.",
            dashboard=links.SLO,
            runbook="slo",
        ),
        Alert(
            name="SLOSignalMissing",
            # Only while the service is scraped: that it is down is ServiceDown's to say.
            expression=lines(f"""
                (
                  {recorded.OBJECTIVE}
                  unless {_ON_SLO}
                  {recorded.slo_events("5m")}
                )
                and {ON_SERVICE}
                {recorded.UP} > 0
            """),
            lasting=clock("10m"),
            severity=TICKET,
            kind=PIPELINE,
            summary="{{ $labels.service }}: nothing counts its {{ $labels.slo }} objective",
            description="The service is scraped, but the events of its {{ $labels.slo }} objective are not there: the "
            "objective would be missed without a word.",
            dashboard=links.SLO,
            runbook="slo",
        ),
    ]
