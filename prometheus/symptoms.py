"""What users feel, and what says that nobody would know if they did."""

from prometheus import foreign, links, recorded
from prometheus.durations import Clock
from prometheus.policy import Policy
from prometheus.promql import BY_SERVICE, ON_INSTANCE, ON_SERVICE, lines
from prometheus.rules import PAGE, SYMPTOM, TICKET, Alert, Group, Record

#: Requests a second below which a comparison with last week, or between replicas, is noise.
_MIN_RATE_RPS = 1
_MIN_REPLICA_RATE_RPS = "0.2"
_OUTLIER_FACTOR = 5
_OUTLIER_LEAST = "0.05"
_DROP = "0.2"


def groups(policy: Policy, clock: Clock) -> list[Group]:
    """What the policy knows of every service, and the symptoms."""
    known = [
        Record(name=recorded.POLICY, expression="vector(1)", labels=service.identity)
        for service in policy.services.values()
    ]
    return [
        Group(name="obslib_policy", rules=known),
        Group(
            name="obslib_symptoms",
            rules=[_down(clock), _undiscovered(clock), _targets(clock), _outlier(clock), _traffic(clock)],
        ),
    ]


def _down(clock: Clock) -> Alert:
    return Alert(
        name="ServiceDown",
        expression=lines(f"""
            count {BY_SERVICE} ({foreign.UP})
            and {ON_SERVICE}
            {recorded.POLICY}
            unless {ON_SERVICE}
            count {BY_SERVICE} ({foreign.UP} == 1)
        """),
        lasting=clock("1m"),
        severity=PAGE,
        kind=SYMPTOM,
        summary="{{ $labels.service }} is down",
        description="No replica ({{ $value }} are known) has answered a scrape for " + f"{clock('1m')}.",
        dashboard=links.FLEET,
        runbook="service",
    )


def _undiscovered(clock: Clock) -> Alert:
    return Alert(
        name="DiscoveryEmpty",
        expression=lines(f"""
            {recorded.POLICY}
            unless {ON_SERVICE}
            count {BY_SERVICE} ({foreign.UP})
        """),
        lasting=clock("2m"),
        severity=PAGE,
        kind=SYMPTOM,
        summary="{{ $labels.service }} has no replica that Prometheus knows of",
        description="The policy names the service, but service discovery returns no target for it: it is not scraped, "
        "and no other alert about it can fire.",
        dashboard=links.PIPELINE,
        runbook="service",
    )


def _targets(clock: Clock) -> Alert:
    return Alert(
        name="TargetsDown",
        expression=lines(f"""
            count {BY_SERVICE} ({foreign.UP} == 0) / {ON_SERVICE} count {BY_SERVICE} ({foreign.UP}) > 0.1
            and {ON_SERVICE}
            {recorded.POLICY}
        """),
        lasting=clock("10m"),
        severity=TICKET,
        kind=SYMPTOM,
        summary="{{ $labels.service }}: some replicas do not answer scrapes",
        description="{{ $value | humanizePercentage }} of its replicas are down, or too busy to answer.",
        dashboard=links.FLEET,
        runbook="service",
    )


def _outlier(clock: Clock) -> Alert:
    requests, errors = recorded.INSTANCE_REQUESTS, recorded.INSTANCE_ERRORS
    return Alert(
        name="ReplicaErrorsOutlier",
        # The others, without the replica itself: it is part of the average, which five times 1/n could never exceed.
        expression=lines(f"""
            {errors} / {ON_INSTANCE} ({requests} > {_MIN_REPLICA_RATE_RPS})
            > {ON_INSTANCE}
            {_OUTLIER_FACTOR} * (
              ({recorded.ERRORS} - {ON_SERVICE} group_right () {errors})
              / {ON_INSTANCE}
              (({recorded.REQUESTS} - {ON_SERVICE} group_right () {requests}) > {_MIN_REPLICA_RATE_RPS})
            )
            and {ON_INSTANCE}
            {errors} / {ON_INSTANCE} ({requests} > 0) > {_OUTLIER_LEAST}
        """),
        lasting=clock("5m"),
        severity=TICKET,
        kind=SYMPTOM,
        summary="{{ $labels.instance }} fails more often than the other replicas of {{ $labels.service }}",
        description="{{ $value | humanizePercentage }} of its answers are errors, over five times the others' share.",
        dashboard=links.SERVICE,
        runbook="service",
    )


def _traffic(clock: Clock) -> Alert:
    before = f"{recorded.REQUESTS} offset {clock('7d')}"
    return Alert(
        name="TrafficDropped",
        expression=lines(f"""
            {recorded.REQUESTS} < {ON_SERVICE} {_DROP} * ({before})
            and {ON_SERVICE}
            ({before}) > {_MIN_RATE_RPS}
        """),
        lasting=clock("15m"),
        severity=TICKET,
        kind=SYMPTOM,
        summary="{{ $labels.service }} gets a fraction of last week's requests",
        description='{{ $value | printf "%.2f" }} requests a second arrive, not a fifth of what came at this hour '
        "a week ago. Nothing fails, because nothing asks.",
        dashboard=links.SERVICE,
        runbook="service",
    )
