"""When nobody is to be told: nothing to do, one error, processes that start again; and what is said when data end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from obslib import names
from prometheus import foreign
from prometheus.cases.case import Case, Firing, constant, series, up, written
from prometheus.cases.story import unit
from prometheus.policy import Policy, Service

#: Three hours, a minute a step.
_STEPS: Final = 180
_MIDDLE: Final = 60
_PROMETHEUS: Final = {"job": "platform", "service": "prometheus", "instance": "prometheus"}
_ALWAYS: Final = frozenset({"Watchdog"})
_GIB: Final = 1024**3
_LOSSES: Final = {
    names.SPANS_DROPPED: names.LABEL_REASON,
    names.LOG_LINES_DROPPED: names.LABEL_REASON,
    names.INTERNAL_ERRORS: names.LABEL_SIGNAL,
    names.LABEL_SETS_OVERFLOWED: names.LABEL_METRIC,
}


@dataclass(frozen=True, kw_only=True)
class _Day:
    """
    Three hours of a service that is well, and of everything that watches it.

    Args:
        service: whose.
        per_minute: how many requests each replica answers, how many calls and operations it makes.
        replicas: how many there are.
        before: what every counter had counted already, errors and losses included.
        restarts: in which minute each replica starts again, from nothing.
        stumbles: in which minute one request, one call and one operation fail.
    """

    service: Service
    per_minute: float = 0
    replicas: int = 1
    before: int = 0
    restarts: dict[int, int] = field(default_factory=dict)
    stumbles: int | None = None

    def series(self) -> dict[str, str]:
        """Every series that an alert reads."""
        found: dict[str, str] = {}
        for number in range(1, self.replicas + 1):
            found |= self._replica(number)
        return found | self._surroundings()

    def _counter(self, number: int, per_minute: float) -> str:
        """What a replica has counted, from nothing again where it restarts."""
        restart = self.restarts.get(number)
        if restart is None:
            return f"{self.before}+{per_minute:g}x{_STEPS}"
        return f"{self.before}+{per_minute:g}x{restart} 0+{per_minute:g}x{_STEPS - restart}"

    def _failures(self, number: int) -> str:
        """As many as there were, and the one that the first replica stumbles over."""
        if self.stumbles is None or number > 1:
            return self._counter(number, 0)
        return f"{self.before}x{self.stumbles} {self.before + 1}x{_STEPS - self.stumbles}"

    def _replica(self, number: int) -> dict[str, str]:
        service, instance = self.service, f"{self.service.name}-{number}"

        def one(metric: str, /, **labels: str) -> str:
            return series(metric, service, instance, **labels)

        def calls(metric: str, /, **labels: str) -> dict[str, str]:
            good, bad = ({names.LABEL_ERROR_TYPE: error} for error in ("", "TimeoutError"))
            return {
                one(f"{metric}_count", **labels, **good): self._counter(number, self.per_minute),
                one(f"{metric}_bucket", **labels, **good, le="+Inf"): self._counter(number, self.per_minute),
                one(f"{metric}_count", **labels, **bad): self._failures(number),
            }

        answered = {names.LABEL_ROUTE: "/", names.LABEL_STATUS_CODE: "200", names.LABEL_ERROR_TYPE: ""}
        failed = {names.LABEL_ROUTE: "/", names.LABEL_STATUS_CODE: "500", names.LABEL_ERROR_TYPE: "500"}
        duration = names.HTTP_SERVER_REQUEST_DURATION
        found = {up(service, instance): constant(1, _STEPS)}
        for le in (*map(str, names.DURATION_BUCKETS_SECONDS), "+Inf"):
            found[one(f"{duration}_bucket", **answered, le=le)] = self._counter(number, self.per_minute)
            found[one(f"{duration}_bucket", **failed, le=le)] = self._failures(number)
        found |= calls(names.HTTP_CLIENT_REQUEST_DURATION, **{names.LABEL_SERVER_ADDRESS: "payments"})
        found |= calls(names.DB_CLIENT_OPERATION_DURATION, **{names.LABEL_DB_SYSTEM: "postgresql"})
        started = self.restarts.get(number)
        called = names.RESOURCE_SERVICE_NAME.replace(".", "_")
        return found | {
            one(f"{duration}_count", **answered): self._counter(number, self.per_minute),
            one(f"{duration}_count", **failed): self._failures(number),
            **{one(lost, **{label: "any"}): self._counter(number, 0) for lost, label in _LOSSES.items()},
            one(f"{names.ASYNCIO_EVENT_LOOP_LAG}_bucket", le="0.005"): self._counter(number, 120),
            one(f"{names.ASYNCIO_EVENT_LOOP_LAG}_bucket", le="+Inf"): self._counter(number, 120),
            one(names.HTTP_SERVER_ACTIVE_REQUESTS): constant(0.4 * self._in_flight, _STEPS),
            one(foreign.PROCESS_CPU): self._counter(number, 6),
            one(names.PROCESS_CPU_LIMIT): constant(2, _STEPS),
            one(foreign.PROCESS_MEMORY): constant(_GIB / 4, _STEPS),
            one(names.PROCESS_MEMORY_LIMIT): constant(_GIB, _STEPS),
            one(foreign.PROCESS_START): f"0x{_STEPS}" if started is None else f"0x{started} {60 * started}x{_STEPS}",
            one(foreign.PROCESS_OPEN_FDS): constant(100, _STEPS),
            one(foreign.PROCESS_MAX_FDS): constant(1024, _STEPS),
            one(names.DB_CLIENT_CONNECTION_PENDING_REQUESTS, **{names.LABEL_POOL: "any"}): constant(0, _STEPS),
            one(names.ANYIO_THREAD_LIMITER_WAITING): constant(0, _STEPS),
            one(names.TARGET_INFO, **{called: service.name}): constant(1, _STEPS),
            written(foreign.SCRAPE_SAMPLES, job="services", **service.identity, instance=instance): f"900x{_STEPS}",
            written(foreign.SCRAPE_DURATION, job="services", **service.identity, instance=instance): f"0.01x{_STEPS}",
        }

    @property
    def _in_flight(self) -> float:
        scaling = self.service.scaling
        return unit(self.service) if scaling and scaling.in_flight_per_replica is not None else 1.0

    def _failures_at_the_edge(self) -> str:
        """It goes on while replicas restart."""
        return constant(self.before, _STEPS) if self.stumbles is None else self._failures(1)

    def _surroundings(self) -> dict[str, str]:
        """The load balancer, the probe, the autoscaler, and Prometheus and Alertmanager about themselves."""
        found = {
            written(foreign.HEAD_SERIES, **_PROMETHEUS): constant(50_000, _STEPS),
            written(foreign.RULE_FAILURES, **_PROMETHEUS, rule_group="any"): constant(self.before, _STEPS),
            written(foreign.RULE_ITERATIONS_MISSED, **_PROMETHEUS, rule_group="any"): constant(self.before, _STEPS),
            written(foreign.CONFIG_RELOADED, **_PROMETHEUS): constant(1, _STEPS),
            written(
                foreign.ALERTMANAGER_CONFIG_RELOADED, service="alertmanager", instance="alertmanager"
            ): f"1x{_STEPS}",
            written(foreign.ALERTMANAGERS, **_PROMETHEUS): constant(1, _STEPS),
            written(foreign.NOTIFICATIONS_DROPPED, **_PROMETHEUS): constant(self.before, _STEPS),
            written(foreign.NOTIFICATIONS_FAILED, **_PROMETHEUS, integration="any"): constant(self.before, _STEPS),
        }
        if scaling := self.service.scaling:
            found[written(foreign.AUTOSCALER_REPLICAS, **self.service.identity)] = constant(self.replicas, _STEPS)
            if scaling.backlog:
                reporter = Service(name=scaling.backlog.reported_by, namespace=self.service.namespace)
                found[series(scaling.backlog.metric, reporter)] = constant(0, _STEPS)
        if edge := self.service.edge:
            balancer = {"service": "haproxy", "instance": "haproxy"}
            arrived = {"proxy": edge.frontend, **balancer}
            rate = self.per_minute * self.replicas
            found |= {
                written(foreign.HAPROXY_FRONTEND_RESPONSES, code="2xx", **arrived): f"{self.before}+{rate:g}x{_STEPS}",
                written(foreign.HAPROXY_FRONTEND_RESPONSES, code="5xx", **arrived): self._failures_at_the_edge(),
                written(foreign.HAPROXY_BACKEND_QUEUE, proxy=edge.backend, **balancer): constant(0, _STEPS),
            }
            if edge.probed:
                probe = written(foreign.PROBE_SUCCESS, service="probe", instance="probe", probed=self.service.name)
                found[probe] = constant(1, _STEPS)
        return found


def cases(policy: Policy) -> list[Case]:
    """Of every service of the policy; what ends is the first one's."""
    first = next(iter(policy.services.values()))
    busy = _days(policy, per_minute=600)
    of_the_first = f'{names.LABEL_INSTANCE}="{first.name}-'
    silent = _ended(busy, lambda key: of_the_first in key and not key.startswith(f"{foreign.UP}{{"))
    gone = _ended(busy, lambda key: of_the_first in key)
    scaled = {"ScaleSignalMissing"} if _asks_for_replicas(policy, first) else set[str]()
    promised = {"SLOSignalMissing"} if first.objectives and first.objectives.by_name() else set[str]()
    return [
        _nobody_is_told("services with nothing to do are well", _days(policy)),
        _nobody_is_told(
            "one error at two requests a minute is nobody's business", _days(policy, per_minute=2, stumbles=_MIDDLE)
        ),
        _nobody_is_told(
            "counters that begin again count nothing that was",
            _days(policy, per_minute=600, replicas=2, before=1_000_000, restarts={1: _MIDDLE, 2: _MIDDLE + 15}),
        ),
        _told_later("a service whose metrics end is scaled and judged no more", silent, scaled | promised),
        _told_later("a service that has gone is missed", gone, scaled | {"DiscoveryEmpty"}),
    ]


def _days(policy: Policy, *, per_minute: float = 0, replicas: int = 1, **how: Any) -> dict[str, str]:
    """The same day for every service; no fewer replicas than it must have."""
    found: dict[str, str] = {}
    for service in policy.services.values():
        count = max(replicas, service.scaling.min_replicas) if service.scaling else replicas
        found |= _Day(service=service, replicas=count, per_minute=per_minute / count, **how).series()
    return found


def _asks_for_replicas(policy: Policy, service: Service) -> bool:
    """Whether a signal that some service is scaled by comes from this one."""
    return bool(service.scaling and service.scaling.signals()) or any(
        scaled.scaling.backlog.reported_by == service.name
        for scaled in policy.scaling()
        if scaled.scaling and scaled.scaling.backlog
    )


def _ended(given: dict[str, str], ends: Callable[[str], bool]) -> dict[str, str]:
    """Some of the series end after an hour: a scrape does not find them any more."""
    return {
        key: f"{values.rpartition('x')[0]}x{_MIDDLE} stale" if ends(key) else values for key, values in given.items()
    }


def _nobody_is_told(name: str, given: dict[str, str]) -> Case:
    minutes = (20, _MIDDLE, *range(_MIDDLE + 1, _MIDDLE + 31, 3), 120, 170)
    return Case(name=name, series=given, checks=[Firing(at=f"{minute}m", alerts=_ALWAYS) for minute in minutes])


def _told_later(name: str, given: dict[str, str], alerts: set[str]) -> Case:
    before = [Firing(at=f"{minute}m", alerts=_ALWAYS) for minute in (20, _MIDDLE)]
    after = [Firing(at=f"{minute}m", alerts=_ALWAYS | alerts) for minute in (_MIDDLE + 20, 120, 170)]
    return Case(name=name, series=given, checks=[*before, *after])
