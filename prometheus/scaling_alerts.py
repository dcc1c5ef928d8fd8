"""Alerts about scaling: those that wake whoever scales, and those for a person when it does not help."""

from prometheus import foreign, links, recorded
from prometheus.durations import Clock, Duration
from prometheus.policy import Server, Service
from prometheus.promql import ON_SERVICE, conjunction, lines, selector
from prometheus.rules import SCALE, SCALING, TICKET, Alert

_TURNS = 3
_NO_FASTER = "0.9"


def _alert(
    name: str,
    expression: str,
    severity: str,
    summary: str,
    description: str,
    *,
    lasting: Duration | None = None,
    keep_firing: Duration | None = None,
    labels: dict[str, str] | None = None,
) -> Alert:
    return Alert(
        name=name,
        expression=lines(expression),
        severity=severity,
        kind=SCALING,
        labels=labels or {},
        summary=summary,
        description=description,
        dashboard=links.SCALING,
        runbook="scaling",
        lasting=lasting,
        keep_firing=keep_firing,
    )


def wakers(service: Service, server: Server, clock: Clock) -> list[Alert]:
    """What wakes whoever scales a service."""
    assert service.scaling is not None
    scaling = service.scaling
    desired = selector(recorded.SCALE_DESIRED, **service.identity)
    running = selector(recorded.SCALE_RUNNING, **service.identity)
    window = clock(scaling.scale_in_after)
    samples = server.samples(scaling.scale_in_after)
    return [
        _alert(
            "ServiceScaleOutNeeded",
            f"{desired} > {ON_SERVICE} {running}",
            SCALE,
            "{{ $labels.service }} needs more replicas",
            "It should have {{ $value }}. Whoever scales reads the recorded number: this alert only wakes.",
            lasting=clock(scaling.scale_out_after),
            keep_firing=clock("1m"),
            labels=service.identity,
        ),
        _alert(
            "ServiceScaleInPossible",
            f"""
                max_over_time({desired}[{window}]) < {ON_SERVICE} {running}
                and {ON_SERVICE}
                count_over_time({desired}[{window}]) >= {samples}
                unless {ON_SERVICE}
                {selector(foreign.ALERTS, alertname="SLOErrorBudgetBurn", alertstate="firing")}
            """,
            SCALE,
            "{{ $labels.service }} has more replicas than it needs",
            f"At no moment of the last {window} did it need more than {{{{ $value }}}}.",
            labels=service.identity,
        ),
    ]


def health(clock: Clock) -> list[Alert]:
    """What tells a person that scaling does not do what it is for."""
    desired, running = recorded.SCALE_DESIRED, recorded.SCALE_RUNNING
    expected, complete = recorded.SCALE_DEMAND_EXPECTED, recorded.SCALE_DEMAND_COMPLETE
    before = clock("15m")
    return [
        _alert(
            "ScaleMaxedOut",
            conjunction(
                f"{recorded.SCALE_WANTED} > {ON_SERVICE} {recorded.SCALE_MAX}",
                f"{running} >= {ON_SERVICE} {recorded.SCALE_MAX}",
            ),
            TICKET,
            "{{ $labels.service }} needs more replicas than the policy allows",
            "It would need {{ $value }}, and has as many as it may.",
            lasting=clock("15m"),
        ),
        _alert(
            "ScaleNotConverging",
            # Not `!=`: an orderly scale-in takes its time. Those that start are counted, those that serve are scraped.
            f"""
                {desired} > {ON_SERVICE} {running}
                or {ON_SERVICE}
                {desired} > {ON_SERVICE} {recorded.UP}
            """,
            TICKET,
            "{{ $labels.service }} does not get the replicas it needs",
            "It should have {{ $value }}: whoever scales is away, or replicas do not become ready.",
            lasting=clock("10m"),
        ),
        _alert(
            "ScaleFlapping",
            # As often as both happened: out in a few steps and back one by one is what a spike looks like.
            f"""
                (
                  changes({running}[{clock("30m")}]) - resets({running}[{clock("30m")}])
                  < {ON_SERVICE}
                  resets({running}[{clock("30m")}])
                  or {ON_SERVICE}
                  resets({running}[{clock("30m")}])
                ) > {_TURNS}
            """,
            TICKET,
            "{{ $labels.service }} gains and loses replicas all the time",
            f"Replicas were added and taken away {{{{ $value }}}} times in {clock('30m')}.",
        ),
        _alert(
            "ScaleIneffective",
            # Replicas were added, the last of them some minutes ago, and the service is too slow, and as slow as at its
            # slowest since: before the load that asked for them came it was fast.
            conjunction(
                f"{running} > {ON_SERVICE} ({running} offset {before})",
                f"changes({running}[{clock('5m')}]) == 0",
                f"{recorded.P95} > {ON_SERVICE} {recorded.LATENCY_BOUND}",
                f"{recorded.P95} >= {ON_SERVICE} {_NO_FASTER} * max_over_time({recorded.P95}[{before}])",
            ),
            TICKET,
            "{{ $labels.service }}: more replicas do not help",
            f"It has {{{{ $value }}}} replicas, more than {before} ago, and is as slow as ever since: what is slow is "
            "behind it.",
            lasting=clock("2m"),
        ),
        _alert(
            "ScaleSignalMissing",
            f"""
                {expected} - {ON_SERVICE} ({complete} or {ON_SERVICE} 0 * {expected}) > 0
                and {ON_SERVICE}
                {running} > 0
            """,
            TICKET,
            "{{ $labels.service }}: signals for its scaling are missing",
            "Missing are {{ $value }}: absent, not a number, or not reported by every replica. Until they are back "
            "replicas are added if need be, and none is taken away.",
            lasting=clock("1m"),
        ),
    ]
