"""What the replicas of a service that scales report, told in steps of five seconds."""

from dataclasses import dataclass
from typing import Final

from obslib import names
from prometheus import foreign, recorded
from prometheus.cases.case import Value, series, up, written
from prometheus.policy import Scaling, Service
from prometheus.promql import selector

OUT: Final = "ServiceScaleOutNeeded"
IN: Final = "ServiceScaleInPossible"
_STEP_SECONDS: Final = 5
#: Twelve minutes: two windows of five, and a little.
STEPS: Final = 144


@dataclass(frozen=True, kw_only=True)
class Story:
    """What the replicas of a service report; each value is for one replica, in promtool's notation."""

    service: Service
    replicas: int
    busy: str = ""
    cores: float = 0.1
    backlog: str = ""

    @property
    def scaling(self) -> Scaling:
        assert self.service.scaling is not None
        return self.service.scaling

    def instances(self) -> list[str]:
        return [f"{self.service.name}-{n}" for n in range(1, self.replicas + 1)]

    def series(self, steps: int = STEPS) -> dict[str, str]:
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


def within(service: Service, count: int) -> int:
    """So many replicas, or as near to it as the policy allows."""
    assert service.scaling is not None
    return max(service.scaling.min_replicas, min(count, service.scaling.max_replicas))


def unit(service: Service) -> float:
    """What one replica is meant to have of the signal that reacts at once."""
    assert service.scaling is not None
    if service.scaling.in_flight_per_replica is not None:
        return float(service.scaling.in_flight_per_replica)
    assert service.scaling.backlog is not None
    return float(service.scaling.backlog.jobs_per_replica)


def per_replica(service: Service) -> bool:
    """Whether the signal is reported in parts, one from each replica."""
    return service.scaling is not None and service.scaling.in_flight_per_replica is not None


def asking(service: Service, replicas: int, wanted: float, then: float | None = None, after: int = 12) -> Story:
    """A story in which the demand is `wanted` replicas, and `then` another number after some steps."""
    share = replicas if per_replica(service) else 1
    first = wanted * unit(service) / share
    second = (wanted if then is None else then) * unit(service) / share
    return Story(service=service, replicas=replicas, busy=f"{first:g}x{after} {second:g}x{STEPS - after}")


def desired(service: Service, at: str, value: float | None) -> Value:
    return Value(expression=selector(recorded.SCALE_DESIRED, **service.identity), at=at, value=value)


def scales(service: Service) -> bool:
    scaling = service.scaling
    return scaling is not None and (scaling.in_flight_per_replica is not None or scaling.backlog is not None)
