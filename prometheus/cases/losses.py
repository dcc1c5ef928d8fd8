"""What must not happen when data are missing: each signal ends, becomes no number, or becomes infinite."""

from typing import Any, Final

from obslib import names
from prometheus import foreign
from prometheus.cases.case import Alerting, Case, Value, fires, quiet, written
from prometheus.cases.story import IN, Story, asking, desired, per_replica, scales, unit, within
from prometheus.policy import Policy, Service

NOT_FINITE_GROUP: Final = "not_finite"
#: promtool cannot write NaN and Inf; dividing by zero makes both: 0 becomes NaN, 1 becomes Inf.
_DIVIDED: Final = "divided_by_zero"


def cases(service: Service) -> list[Case]:
    """Each signal that the policy names, lost."""
    assert service.scaling is not None
    if not scales(service):
        return _lose_only_cpu(service)
    lose = {"in_flight": _lose_in_flight, "cpu": _lose_cpu, "backlog": _lose_backlog}
    return [case for signal in service.scaling.signals() for case in lose[signal](service)] + _count_is_lost(service)


def _count_is_lost(service: Service) -> list[Case]:
    """The autoscaler says NaN while it cannot ask who runs replicas: those that discovery knows are counted then."""
    assert service.scaling is not None
    four = within(service, 4)
    count = written(foreign.AUTOSCALER_REPLICAS, **service.identity)
    return [
        Case(
            name=f"{service.name}: a number of replicas that nobody knows is counted",
            interval="5s",
            series=asking(service, four, four).series() | {_divided(count): "0x144"},
            checks=[
                desired(service, "4m", four),
                desired(service, "11m", four),
                quiet("ScaleNotConverging", "11m", service=service.name),
            ],
        )
    ]


def _loss(service: Service, name: str, lost: dict[str, str], removed: tuple[str, ...] = ()) -> list[Case]:
    """
    Four replicas are needed for five minutes; then one signal is lost, and the others ask for one.

    A plain maximum would fall; what is desired must not, and must still rise.
    """
    assert service.scaling is not None
    four = within(service, 4)
    story = asking(service, four, four, 0.1, after=60)
    given = {key: values for key, values in story.series().items() if key not in removed} | lost
    about = {"service": service.name}
    return [
        Case(
            name=f"{service.name}: {name}: nothing is given up, and somebody is told",
            interval="5s",
            series=given,
            checks=[
                quiet("ScaleSignalMissing", "4m", **about),
                desired(service, "4m", four),
                desired(service, "315s", four),
                desired(service, "11m", four),
                quiet(IN, "11m", **about),
                fires("ScaleSignalMissing", "11m", **about),
            ],
        )
    ]


def _ways(service: Service, what: str, selectors: list[str], value: str) -> list[Case]:
    """A signal that ends, becomes no number, or becomes infinite, after five minutes."""
    begins = f"{value}x60"
    ended = dict.fromkeys(selectors, f"{begins} stale")
    found = _loss(service, f"{what} ends", ended)
    for words, numerator in (("becomes no number", "0"), ("becomes infinite", "1")):
        broken = dict.fromkeys(selectors, f"{begins} stale")
        # One step later: the end that was written has taken the first.
        broken |= {_divided(key): f"_x62 {numerator}x82" for key in selectors}
        found += _loss(service, f"{what} {words}", broken)
    return found


def _divided(selector_text: str) -> str:
    metric, _, labels = selector_text.partition("{")
    return f'{_DIVIDED}{{metric="{metric}", {labels}'


def _lose_in_flight(service: Service) -> list[Case]:
    assert service.scaling is not None
    four = within(service, 4)
    story = asking(service, four, four)
    everything = [story.active(instance) for instance in story.instances()]
    one = f"{unit(service):g}"
    found = [
        *_ways(service, "the number of requests in flight", everything, one),
        *_ways(service, "one replica's number of requests in flight", everything[-1:], one),
    ]
    if service.edge and service.edge.backend:
        found += _ways(service, "the load balancer's queue", [story.queue()], "0")
    return found


def _lose_cpu(service: Service) -> list[Case]:
    assert service.scaling is not None
    four = within(service, 4)
    story = asking(service, four, four)
    found: list[Case] = []
    for what, instances in (("the CPU", story.instances()), ("one replica's CPU", story.instances()[-1:])):
        selectors = [story.cpu(instance) for instance in instances]
        # A rate over five minutes goes on for five minutes: the story ends it at once by never having had it.
        (case,) = _loss(service, f"{what} is not there", {}, removed=tuple(selectors))
        found.append(_from_the_start(case, service, four))
    return found


def _lose_only_cpu(service: Service) -> list[Case]:
    """Nothing else says what is needed: it is nearly too little, then nobody knows."""
    assert service.scaling is not None
    assert service.scaling.cpu is not None
    four = within(service, 4)
    cores = 0.95 * float(service.scaling.cpu)
    story = Story(service=service, replicas=four, cores=cores)
    ended = {story.cpu(instance): f"0+{cores * 5:g}x60 stale" for instance in story.instances()}
    about = {"service": service.name}
    return [
        Case(
            name=f"{service.name}: the CPU, its only signal, ends: nothing is given up, and somebody is told",
            interval="5s",
            series=story.series() | ended,
            checks=[
                quiet("ScaleSignalMissing", "4m", **about),
                desired(service, "4m", four),
                # Rates go on for as long as their window.
                desired(service, "705s", four),
                quiet(IN, "705s", **about),
                fires("ScaleSignalMissing", "705s", **about),
            ],
        )
    ]


def _from_the_start(case: Case, service: Service, running: int) -> Case:
    about = {"service": service.name}
    checks: list[Alerting | Value] = [
        desired(service, "11m", running),
        quiet(IN, "11m", **about),
        fires("ScaleSignalMissing", "4m", **about),
    ]
    return Case(name=case.name, interval=case.interval, series=case.series, checks=checks)


def _lose_backlog(service: Service) -> list[Case]:
    assert service.scaling is not None
    if per_replica(service):
        return []
    four = within(service, 4)
    story = asking(service, four, four)
    return _ways(service, "the backlog", [story.jobs()], f"{four * unit(service):g}")


def not_finite_rules(policy: Policy) -> dict[str, Any]:  # Any: what YAML can hold
    """Rules that make what promtool cannot write: the metrics of the signals, divided by zero."""
    backlogs = [s.scaling.backlog.metric for s in policy.scaling() if s.scaling and s.scaling.backlog]
    metrics = (names.HTTP_SERVER_ACTIVE_REQUESTS, foreign.HAPROXY_BACKEND_QUEUE, foreign.AUTOSCALER_REPLICAS, *backlogs)
    rules = [
        {"record": metric, "expr": f'sum without (metric) ({_DIVIDED}{{metric="{metric}"}} / 0)'} for metric in metrics
    ]
    return {"groups": [{"name": NOT_FINITE_GROUP, "rules": rules}]}
