"""Down, undiscovered, partly down, one bad replica, no traffic; and the same at the edge."""

from prometheus import foreign
from prometheus.cases.case import Case, answers, constant, errors, fires, quiet, rising, up, written
from prometheus.policy import Policy, Service


def cases(policy: Policy) -> list[Case]:
    """For the first service of the policy, and the first that is measured at the edge, or probed."""
    service = next(iter(policy.services.values()))
    measured = [s for s in policy.promising() if s.objectives and s.objectives.edge and s.objectives.availability]
    probed = [s for s in policy.services.values() if s.edge and s.edge.probed]
    return [
        *_down(service),
        *_outlier(service),
        *[case for edge in measured[:1] for case in _disagreement(edge)],
        *[case for edge in probed[:1] for case in _probe(edge)],
    ]


def weekly(policy: Policy) -> list[Case]:
    """What compares with last week, for the first service."""
    service = next(iter(policy.services.values()))
    week, evening = 7 * 24 * 60, 60
    before = rising(600, week)
    over, under = (Service(name=f"{service.name}-{name}") for name in ("over", "under"))
    return [
        Case(
            name="traffic that falls to a twentieth of last week's, or from just more than one a second, is missed",
            series={
                answers(service): f"{before} {600 * week}+30x{evening}",
                answers(over): f"{rising(63, week)} {63 * week}x{evening}",
                answers(under): f"{rising(57, week)} {57 * week}x{evening}",
            },
            checks=[
                quiet("TrafficDropped", f"{week}m"),
                fires("TrafficDropped", f"{week + 40}m", service=service.name),
                quiet("TrafficDropped", f"{week + 15}m", service=over.name),
                fires("TrafficDropped", f"{week + 25}m", service=over.name),
                quiet("TrafficDropped", f"{week + 40}m", service=under.name),
            ],
        ),
        Case(
            name="half of last week's traffic is a quiet evening, and next to nothing then is next to nothing now",
            series={
                answers(service): f"{before} {600 * week}+300x{evening}",
                answers(_other(service)): f"{rising(6, week)} {6 * week}x{evening}",
            },
            checks=[quiet("TrafficDropped", f"{week + 40}m")],
        ),
    ]


def _other(service: Service) -> Service:
    return Service(name=f"not-{service.name}")


def _ups(service: Service, *values: int) -> dict[str, str]:
    return {up(service, f"{service.name}-{n}"): constant(value, 30) for n, value in enumerate(values, 1)}


def _down(service: Service) -> list[Case]:
    name = {"service": service.name}
    return [
        Case(
            name="a service whose replicas are all down pages, and is still discovered",
            series=_ups(service, 0, 0),
            checks=[
                quiet("ServiceDown", "0m", **name),
                fires("ServiceDown", "3m", **name),
                quiet("DiscoveryEmpty", "10m", **name),
                quiet("PlatformDown", "20m", **name),
            ],
        ),
        Case(
            name="with one of two replicas a service is not down, but half of its targets are",
            series=_ups(service, 1, 0),
            checks=[
                quiet("ServiceDown", "20m", **name),
                quiet("TargetsDown", "5m", **name),
                fires("TargetsDown", "15m", **name),
            ],
        ),
        Case(
            name="with all replicas up nothing is said",
            series=_ups(service, 1, 1),
            checks=[
                quiet("ServiceDown", "20m", **name),
                quiet("TargetsDown", "20m", **name),
                quiet("DiscoveryEmpty", "20m", **name),
            ],
        ),
        Case(
            name="a service that discovery does not find pages: no other alert about it can fire",
            series={written(foreign.UP, service="prometheus", instance="prometheus"): constant(1, 30)},
            checks=[
                quiet("DiscoveryEmpty", "1m", **name),
                fires("DiscoveryEmpty", "5m", **name),
                quiet("ServiceDown", "20m", **name),
            ],
        ),
    ]


def _replicas(service: Service, *shares: float) -> dict[str, str]:
    """Six hundred answers a minute from each replica, with a share of errors."""
    return {
        selector: rising(600 * part, 30)
        for n, share in enumerate(shares, 1)
        for selector, part in (
            (answers(service, f"{service.name}-{n}"), 1 - share),
            (errors(service, f"{service.name}-{n}"), share),
        )
    }


def _outlier(service: Service) -> list[Case]:
    name = {"service": service.name}
    return [
        Case(
            name="one replica of two that fails a third of its requests is the one to look at",
            series=_replicas(service, 0.01, 0.3),
            checks=[
                quiet("ReplicaErrorsOutlier", "3m", **name),
                fires("ReplicaErrorsOutlier", "15m", **name, instance=f"{service.name}-2"),
                quiet("ReplicaErrorsOutlier", "15m", **name, instance=f"{service.name}-1"),
            ],
        ),
        Case(
            name="replicas that all fail are no outliers, and a few errors on one are none either",
            series=_replicas(service, 0.3, 0.3),
            checks=[quiet("ReplicaErrorsOutlier", "20m", **name)],
        ),
        Case(
            name="an only replica has no others to be compared with",
            series=_replicas(service, 0.3),
            checks=[quiet("ReplicaErrorsOutlier", "20m", **name)],
        ),
        Case(
            name="four errors in a hundred, where the other replica has none, are not enough",
            series=_replicas(service, 0, 0.04),
            checks=[quiet("ReplicaErrorsOutlier", "20m", **name)],
        ),
    ]


def _disagreement(service: Service) -> list[Case]:
    assert service.edge is not None
    edge = {"proxy": service.edge.frontend, "instance": "haproxy", "service": "haproxy"}

    def story(share_at_the_edge: float, share_inside: float) -> dict[str, str]:
        return {
            written(foreign.HAPROXY_FRONTEND_RESPONSES, code="2xx", **edge): rising(600 * (1 - share_at_the_edge), 30),
            written(foreign.HAPROXY_FRONTEND_RESPONSES, code="5xx", **edge): rising(600 * share_at_the_edge, 30),
            answers(service): rising(600 * (1 - share_inside), 30),
            errors(service): rising(600 * share_inside, 30),
        }

    name = {"service": service.name}
    return [
        Case(
            name="errors that only the load balancer knows of are a disagreement",
            series=story(0.1, 0),
            checks=[quiet("EdgeDisagrees", "2m", **name), fires("EdgeDisagrees", "15m", **name)],
        ),
        Case(
            name="errors that both count are none",
            series=story(0.1, 0.1),
            checks=[quiet("EdgeDisagrees", "20m", **name)],
        ),
        Case(
            name="what the load balancer answers alone, the service getting nothing, is a disagreement that lasts",
            series=story(1, 0) | {answers(service): "9000x30", errors(service): "0x30"},
            checks=[fires("EdgeDisagrees", "15m", **name), fires("EdgeDisagrees", "30m", **name)],
        ),
        Case(
            name="probes, which the service does not count, make no disagreement of errors that both count",
            series=story(0.01, 0) | {answers(service): rising(54, 30), errors(service): rising(6, 30)},
            checks=[quiet("EdgeDisagrees", "20m", **name)],
        ),
    ]


def _probe(service: Service) -> list[Case]:
    probe = written(foreign.PROBE_SUCCESS, service="probe", instance="probe", probed=service.name)
    name = {"service": service.name}
    return [
        Case(
            name="a probe that gets no good answer pages",
            series={probe: "1x10 0x10"},
            checks=[
                quiet("ProbeFailing", "10m", **name),
                fires("ProbeFailing", "15m", **name),
                quiet("ProbeMissing", "20m", **name),
            ],
        ),
        Case(
            name="one failed probe in ten pages nobody",
            series={probe: "1x9 0 1x20"},
            checks=[quiet("ProbeFailing", "10m", **name), quiet("ProbeFailing", "12m", **name)],
        ),
        Case(
            name="a probe that has gone is missed, and is no failure",
            series={up(service): constant(1, 30)},
            checks=[fires("ProbeMissing", "15m", **name), quiet("ProbeFailing", "20m", **name)],
        ),
    ]
