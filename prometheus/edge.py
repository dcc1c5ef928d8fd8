"""Availability where requests come in: what HAProxy answers by itself never reaches a service."""

from obslib import names
from prometheus import foreign, links, recorded
from prometheus.durations import Clock
from prometheus.policy import AVAILABILITY, EDGE, Policy
from prometheus.promql import BY_SERVICE, ON_SERVICE, lines, selector
from prometheus.rules import PAGE, PIPELINE, SYMPTOM, TICKET, Alert, Group, Record

_DISAGREEMENT = "0.02"
_MIN_EVENTS = 50


def groups(policy: Policy, clock: Clock) -> list[Group]:
    """Rules for what the policy measures at the edge, none where it measures nothing there."""
    probed = [service for service in policy.services.values() if service.edge and service.edge.probed]
    measured = [service for service in policy.promising() if service.objectives and service.objectives.edge]
    rules: list[Record | Alert] = []
    if measured:
        rules.append(_disagreement(clock))
    if probed:
        rules += [_probe(clock), _probe_failing(clock), _probe_missing(clock, [s.name for s in probed])]
    return [Group(name="obslib_edge", rules=rules)] if rules else []


def _disagreement(clock: Clock) -> Alert:
    # Numbers, not shares: the edge alone counts probes, and a service that gets nothing has no share of anything.
    events = selector(recorded.slo_events("5m"), slo=EDGE)
    edge = selector(recorded.slo_bad_events("5m"), slo=EDGE)
    own = selector(recorded.slo_bad_events("5m"), slo=AVAILABILITY)
    return Alert(
        name="EdgeDisagrees",
        expression=lines(f"""
            abs({edge} - {ON_SERVICE} ({own} or {ON_SERVICE} 0 * {events})) / {ON_SERVICE} ({events} >= {_MIN_EVENTS})
            > {_DISAGREEMENT}
        """),
        lasting=clock("5m"),
        severity=TICKET,
        kind=SYMPTOM,
        summary="{{ $labels.service }}: the load balancer counts other errors than the service",
        description="They differ about {{ $value | humanizePercentage }} of what the edge answers. Where the edge "
        "counts more, callers get errors that no replica knows of.",
        dashboard=links.SLO,
        runbook="edge",
    )


def _probe(clock: Clock) -> Record:
    probes = selector(foreign.PROBE_SUCCESS, f'{foreign.LABEL_PROBED}!=""')
    return Record(
        name=recorded.PROBE_SUCCESS,
        # A probe's target is a service of its own, or it would count as a replica of the one it asks for.
        expression=lines(f"""
            avg {BY_SERVICE} (
              label_replace(
                avg_over_time({probes}[{clock("2m")}]),
                "{names.LABEL_SERVICE}", "$1", "{foreign.LABEL_PROBED}", "(.+)"
              )
            )
        """),
    )


def _probe_failing(clock: Clock) -> Alert:
    return Alert(
        name="ProbeFailing",
        expression=f"{recorded.PROBE_SUCCESS} < 0.5",
        lasting=clock("1m"),
        severity=PAGE,
        kind=SYMPTOM,
        summary="{{ $labels.service }} does not answer from outside",
        description="Only {{ $value | humanizePercentage }} of the probes of the last "
        f"{clock('2m')} got a good answer through the load balancer.",
        dashboard=links.SERVICE,
        runbook="edge",
    )


def _probe_missing(clock: Clock, services: list[str]) -> Alert:
    return Alert(
        name="ProbeMissing",
        expression=lines(f"""
            {selector(recorded.POLICY, f'{names.LABEL_SERVICE}=~"{"|".join(services)}"')}
            unless {ON_SERVICE}
            {recorded.PROBE_SUCCESS}
        """),
        lasting=clock("10m"),
        severity=TICKET,
        kind=PIPELINE,
        summary="{{ $labels.service }} is not probed",
        description="No probe's result comes in: an outage between callers and the load balancer would go unnoticed.",
        dashboard=links.PIPELINE,
        runbook="edge",
    )
