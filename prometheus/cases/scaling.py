"""
How many replicas are desired, and what must not happen when data are missing.

A story is told in steps of five seconds; a number of replicas up is a number running unless the story says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from obslib import names
from prometheus import foreign, recorded
from prometheus.cases.case import Alerting, Case, Value, fires, quiet, series, up, written
from prometheus.policy import Policy, Scaling, Service
from prometheus.promql import selector

NOT_FINITE_GROUP: Final = "not_finite"
OUT, IN = "ServiceScaleOutNeeded", "ServiceScaleInPossible"
_STEP_SECONDS = 5
#: Twelve minutes: two windows of five, and a little.
_STEPS = 144
#: promtool cannot write NaN and Inf; dividing by zero makes both: 0 becomes NaN, 1 becomes Inf.
_DIVIDED: Final = "divided_by_zero"


@dataclass(frozen=True, kw_only=True)
class _Story:
    """What the replicas of a service report; each value is for one replica, in promtool's notation."""

    service: Service
    replicas: int
    busy: str
    cores: float = 0.1
    backlog: str = ""

    @property
    def scaling(self) -> Scaling:
        assert self.service.scaling is not None
        return self.service.scaling

    def instances(self) -> list[str]:
        return [f"{self.service.name}-{n}" for n in range(1, self.replicas + 1)]

    def series(self, steps: int = _STEPS) -> dict[str, str]:
        """Every signal the policy asks for, from every replica."""
        service, found = self.service, {}
        for instance in self.instances():
            found[up(service, instance)] = f"1x{steps}"
            if self.scaling.cpu is not None:
                found[self.cpu(instance)] = f"0+{self.cores * _STEP_SECONDS:g}x{steps}"
            if self.scaling.in_flight_per_replica is not None:
                found[self.active(instance)] = self.busy
        if self.scaling.in_flight_per_replica is not None and service.edge and service.edge.backend:
            found[self.queue()] = f"0x{steps}"
        if self.scaling.backlog is not None:
            found[self.jobs()] = self.backlog or self.busy
        return found

    def cpu(self, instance: str) -> str:
        return series(foreign.PROCESS_CPU, self.service, instance)

    def active(self, instance: str) -> str:
        return series(names.HTTP_SERVER_ACTIVE_REQUESTS, self.service, instance)

    def queue(self) -> str:
        assert self.service.edge is not None
        return written(
            foreign.HAPROXY_BACKEND_QUEUE, service="haproxy", instance="haproxy", proxy=self.service.edge.backend
        )

    def jobs(self) -> str:
        assert self.scaling.backlog is not None
        return series(self.scaling.backlog.metric, Service(name=self.scaling.backlog.reported_by))


def cases(policy: Policy) -> list[Case]:
    """For every service that scales, by each of its signals."""
    found: list[Case] = []
    for service in policy.scaling():
        for signal in service.scaling.signals() if service.scaling else ():
            found += _LOSSES[signal](service)
        found += _demand(service)
        if service.scaling and service.scaling.cpu is not None:
            found += _hold(service)
    return found


def _unit(service: Service) -> float:
    """What one replica is meant to have of the signal that reacts at once."""
    assert service.scaling is not None
    if service.scaling.in_flight_per_replica is not None:
        return float(service.scaling.in_flight_per_replica)
    assert service.scaling.backlog is not None
    return float(service.scaling.backlog.jobs_per_replica)


def _per_replica(service: Service) -> bool:
    """Whether the signal is reported in parts, one from each replica."""
    return service.scaling is not None and service.scaling.in_flight_per_replica is not None


def _asking(service: Service, replicas: int, wanted: float, then: float | None = None, after: int = 12) -> _Story:
    """A story in which the demand is `wanted` replicas, and `then` another number after some steps."""
    share = replicas if _per_replica(service) else 1
    first = wanted * _unit(service) / share
    second = (wanted if then is None else then) * _unit(service) / share
    return _Story(service=service, replicas=replicas, busy=f"{first:g}x{after} {second:g}x{_STEPS - after}")


def _desired(service: Service, at: str, value: float | None) -> Value:
    return Value(expression=selector(recorded.SCALE_DESIRED, **service.identity), at=at, value=value)


def _scales(service: Service) -> bool:
    scaling = service.scaling
    return scaling is not None and (scaling.in_flight_per_replica is not None or scaling.backlog is not None)


def _demand(service: Service) -> list[Case]:
    scaling = service.scaling
    if scaling is None or not _scales(service):
        return []
    about, least, most = {"service": service.name}, scaling.min_replicas, scaling.max_replicas
    two, four = min(2, most), min(4, most)
    falling = _asking(service, four, 0.1)
    name = service.name
    return [
        Case(
            name=f"{name}: a spike asks for replicas within two evaluations, and for no more than the policy allows",
            interval="5s",
            series=_asking(service, least, 0.5 * least, 10 * most).series(),
            checks=[
                _desired(service, "1m", least),
                quiet(OUT, "1m", **about),
                _desired(service, "70s", most),
                fires(OUT, "80s", **about),
                quiet(IN, "10m", **about),
                fires("ScaleNotConverging", "715s", **about),
            ],
        ),
        Case(
            name=f"{name}: a little more than what runs can carry is carried",
            interval="5s",
            series=_asking(service, two, 1.05 * two).series(),
            checks=[
                _desired(service, "5m", two),
                quiet(OUT, "5m", **about),
                quiet("ScaleNotConverging", "12m", **about),
            ],
        ),
        Case(
            name=f"{name}: replicas are given up only after a whole window without need",
            interval="5s",
            series=falling.series(),
            checks=[
                _desired(service, "1m", max(least, 1)),
                quiet(IN, "4m", **about),
                fires(IN, "6m", **about),
                quiet(OUT, "6m", **about),
                quiet("ScaleSignalMissing", "6m", **about),
            ],
        ),
        Case(
            name=f"{name}: no replica is given up while the error budget burns",
            interval="5s",
            series=falling.series()
            | {written(foreign.ALERTS, alertname="SLOErrorBudgetBurn", alertstate="firing", **about): f"1x{_STEPS}"},
            checks=[quiet(IN, "6m", **about), quiet(IN, "11m", **about)],
        ),
        Case(
            name=f"{name}: what is desired stays while a replica misses its scrapes",
            interval="5s",
            series=_asking(service, four, four).series() | _deaf(service, four),
            checks=[
                _desired(service, "4m", four),
                _desired(service, "11m", four),
                quiet(IN, "11m", **about),
            ],
        ),
        Case(
            name=f"{name}: when all targets are gone there is no answer, rather than a wrong one",
            interval="5s",
            series={
                key: f"{values.split()[0].split('x')[0]}x60 stale" if "+" not in values else "0+0.5x60 stale"
                for key, values in _asking(service, four, four).series().items()
            },
            checks=[_desired(service, "4m", four), _desired(service, "11m", None), quiet(IN, "11m", **about)],
        ),
    ]


def _deaf(service: Service, replicas: int) -> dict[str, str]:
    """The last replica is busy and answers no scrape after five minutes: all of its series but `up` go stale."""
    story = _asking(service, replicas, replicas)
    last = story.instances()[-1]
    silent = {up(service, last): "1x60 0x84"}
    if _per_replica(service):
        silent[story.active(last)] = f"{_unit(service):g}x60 stale"
    else:
        silent[story.jobs()] = f"{replicas * _unit(service):g}x60 {0:g}x84"
    if story.scaling.cpu is not None:
        silent[story.cpu(last)] = "0+0.5x60 stale"
    return silent


def _loss(service: Service, name: str, lost: dict[str, str], removed: tuple[str, ...] = ()) -> list[Case]:
    """
    Four replicas are needed for five minutes; then one signal is lost, and the others ask for one.

    A plain maximum would fall; what is desired must not, and must still rise.
    """
    assert service.scaling is not None
    four = min(4, service.scaling.max_replicas)
    story = _asking(service, four, four, 0.1, after=60)
    given = {key: values for key, values in story.series().items() if key not in removed} | lost
    about = {"service": service.name}
    return [
        Case(
            name=f"{service.name}: {name}: nothing is given up, and somebody is told",
            interval="5s",
            series=given,
            checks=[
                quiet("ScaleSignalMissing", "4m", **about),
                _desired(service, "4m", four),
                _desired(service, "315s", four),
                _desired(service, "11m", four),
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
    four = min(4, service.scaling.max_replicas)
    story = _asking(service, four, four)
    everything = [story.active(instance) for instance in story.instances()]
    unit = f"{_unit(service):g}"
    found = [
        *_ways(service, "the number of requests in flight", everything, unit),
        *_ways(service, "one replica's number of requests in flight", everything[-1:], unit),
    ]
    if service.edge and service.edge.backend:
        found += _ways(service, "the load balancer's queue", [story.queue()], "0")
    return found


def _lose_cpu(service: Service) -> list[Case]:
    assert service.scaling is not None
    four = min(4, service.scaling.max_replicas)
    story = _asking(service, four, four)
    found: list[Case] = []
    for what, instances in (("the CPU", story.instances()), ("one replica's CPU", story.instances()[-1:])):
        selectors = [story.cpu(instance) for instance in instances]
        # A rate over five minutes goes on for five minutes: the story ends it at once by never having had it.
        (case,) = _loss(service, f"{what} is not there", {}, removed=tuple(selectors))
        found.append(_from_the_start(case, service, four))
    return found


def _from_the_start(case: Case, service: Service, running: int) -> Case:
    about = {"service": service.name}
    checks: list[Alerting | Value] = [
        _desired(service, "11m", running),
        quiet(IN, "11m", **about),
        fires("ScaleSignalMissing", "4m", **about),
    ]
    return Case(name=case.name, interval=case.interval, series=case.series, checks=checks)


def _lose_backlog(service: Service) -> list[Case]:
    assert service.scaling is not None
    if _per_replica(service):
        return []
    four = min(4, service.scaling.max_replicas)
    story = _asking(service, four, four)
    return _ways(service, "the backlog", [story.jobs()], f"{four * _unit(service):g}")


_LOSSES: Final[dict[str, Callable[[Service], list[Case]]]] = {
    "in_flight": _lose_in_flight,
    "cpu": _lose_cpu,
    "backlog": _lose_backlog,
}


def _hold(service: Service) -> list[Case]:
    scaling = service.scaling
    assert scaling is not None
    assert scaling.cpu is not None
    if scaling.max_replicas < 4:
        return []
    hot = float(scaling.cpu) * 1.2
    idle = f"0x{_STEPS}"
    story = _Story(service=service, replicas=2, busy=idle, cores=hot, backlog=idle)
    late = f"{service.name}-3"
    joins = 78  # after six and a half minutes
    third = {
        up(service, late): f"_x{joins} 1x{_STEPS - joins}",
        story.cpu(late): f"_x{joins} 0+{hot * _STEP_SECONDS:g}x{_STEPS - joins}",
    }
    if scaling.in_flight_per_replica is not None:
        third[story.active(late)] = f"_x{joins} 0x{_STEPS - joins}"
    return [
        Case(
            name=f"{service.name}: average CPU above its target adds one replica, the next after a full window",
            interval="5s",
            series=story.series() | third,
            checks=[
                _desired(service, "4m", 2),
                _desired(service, "6m", 3),
                _desired(service, "410s", 3),
                _desired(service, "8m", 3),
                _desired(service, "11m", 3),
                _desired(service, "710s", 4),
            ],
        ),
        Case(
            name=f"{service.name}: average CPU below its target adds none",
            interval="5s",
            series=_Story(
                service=service, replicas=2, busy=idle, cores=float(scaling.cpu) * 0.9, backlog=idle
            ).series(),
            checks=[_desired(service, "6m", 2), quiet(OUT, "6m", service=service.name)],
        ),
    ]


def slow(policy: Policy) -> list[Case]:
    """What takes longer than minutes, for each service that scales by what reacts at once."""
    found: list[Case] = []
    for service in policy.scaling():
        if _scales(service):
            found += [*_maxed_out(service), *_flapping(service), *_converging(service)]
            if service.objectives and service.objectives.latency_bound and _per_replica(service):
                found += _ineffective(service)
    return found


def _slow_story(service: Service, replicas: int, wanted: float) -> dict[str, str]:
    """An hour in steps of thirty seconds."""
    share = replicas if _per_replica(service) else 1
    busy = f"{wanted * _unit(service) / share:g}x120"
    return _Story(service=service, replicas=replicas, busy=busy).series(120)


def _maxed_out(service: Service) -> list[Case]:
    assert service.scaling is not None
    most, about = service.scaling.max_replicas, {"service": service.name}
    return [
        Case(
            name=f"{service.name}: more is needed than the policy allows",
            interval="30s",
            series=_slow_story(service, most, 1.5 * most),
            checks=[
                quiet("ScaleMaxedOut", "5m", **about),
                fires("ScaleMaxedOut", "30m", **about),
                quiet("ScaleNotConverging", "30m", **about),
            ],
        ),
        Case(
            name=f"{service.name}: as many as the policy allows are enough",
            interval="30s",
            series=_slow_story(service, most, most),
            checks=[quiet("ScaleMaxedOut", "30m", **about), quiet("ScaleNotConverging", "30m", **about)],
        ),
    ]


def _flapping(service: Service) -> list[Case]:
    about = {"service": service.name}
    running = written(foreign.AUTOSCALER_REPLICAS, **service.identity)
    return [
        Case(
            name=f"{service.name}: replicas that come and go every few minutes flap",
            interval="30s",
            series={running: "2x4 3x4 " * 15},
            checks=[fires("ScaleFlapping", "50m", **about)],
        ),
        Case(
            name=f"{service.name}: out in four steps and back in two is a spike",
            interval="30s",
            series={running: "1x20 2x5 4x5 6x5 8x30 4x10 1x30"},
            checks=[quiet("ScaleFlapping", "30m", **about), quiet("ScaleFlapping", "50m", **about)],
        ),
    ]


def _converging(service: Service) -> list[Case]:
    about = {"service": service.name}
    assert service.scaling is not None
    running = written(foreign.AUTOSCALER_REPLICAS, **service.identity)
    many = min(4, service.scaling.max_replicas)
    return [
        Case(
            name=f"{service.name}: an orderly scale-in is not taken for a failure to converge",
            interval="30s",
            series=_slow_story(service, many, 0.1) | {running: f"{many}x60 1x60"},
            checks=[quiet("ScaleNotConverging", "25m", **about), quiet("ScaleNotConverging", "50m", **about)],
        )
    ]


def _ineffective(service: Service) -> list[Case]:
    assert service.objectives is not None
    assert service.objectives.latency_bound is not None
    about = {"service": service.name}
    running = written(foreign.AUTOSCALER_REPLICAS, **service.identity)
    bound_seconds = float(service.objectives.latency_bound.seconds)
    above = next(b for b in names.DURATION_BUCKETS_SECONDS if b > bound_seconds)

    def durations(fast_then: tuple[float, float]) -> dict[str, str]:
        """Twenty minutes with a share of fast answers, then another share."""
        first, second = (600 / 2 * share for share in fast_then)
        bucket = f"{names.HTTP_SERVER_REQUEST_DURATION}_bucket"
        fast = f"0+{first:g}x60 {60 * first:g}+{second:g}x60"
        every = "0+300x60 18000+300x60"
        return {
            series(bucket, service, le=str(bound_seconds)): fast,
            series(bucket, service, le=str(float(above))): every,
            series(bucket, service, le="+Inf"): every,
        }

    added = {running: "2x60 6x60"}
    return [
        Case(
            name=f"{service.name}: replicas were added and it is as slow as before: what is slow is behind it",
            interval="30s",
            series=added | durations((0.1, 0.1)),
            checks=[
                quiet("ScaleIneffective", "25m", **about),
                fires("ScaleIneffective", "40m", **about),
                quiet("ScaleIneffective", "50m", **about),
            ],
        ),
        Case(
            name=f"{service.name}: replicas were added and it is fast again",
            interval="30s",
            series=added | durations((0.1, 1.0)),
            checks=[quiet("ScaleIneffective", at, **about) for at in ("35m", "40m", "44m")],
        ),
    ]


def not_finite_rules(policy: Policy) -> dict[str, Any]:  # Any: what YAML can hold
    """Rules that make what promtool cannot write: the metrics of the signals, divided by zero."""
    backlogs = [s.scaling.backlog.metric for s in policy.scaling() if s.scaling and s.scaling.backlog]
    metrics = (names.HTTP_SERVER_ACTIVE_REQUESTS, foreign.HAPROXY_BACKEND_QUEUE, *backlogs)
    rules = [
        {"record": metric, "expr": f'sum without (metric) ({_DIVIDED}{{metric="{metric}"}} / 0)'} for metric in metrics
    ]
    return {"groups": [{"name": NOT_FINITE_GROUP, "rules": rules}]}
