"""What is promised about each service and how far it may scale: the policy, read and checked."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from prometheus.durations import Duration

AVAILABILITY: Final = "availability"
LATENCY: Final = "latency"
EDGE: Final = "edge"

_FULL: Final = Fraction(9, 10)
_FIVE_MINUTES: Final = Duration.parse("5m")
_FIVE_SECONDS: Final = Duration.parse("5s")
_FIFTEEN_SECONDS: Final = Duration.parse("15s")
_THIRTY_SECONDS: Final = Duration.parse("30s")


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """
    A service's promises over a period; None where none is made.

    `availability` and `edge` are shares of good answers, as the service counts them and as the load balancer does;
    `latency` is the share of answers within `latency_bound`.
    """

    period: Duration
    availability: Fraction | None = None
    latency: Fraction | None = None
    latency_bound: Duration | None = None
    edge: Fraction | None = None

    def by_name(self) -> dict[str, Fraction]:
        promised = {AVAILABILITY: self.availability, LATENCY: self.latency, EDGE: self.edge}
        return {name: objective for name, objective in promised.items() if objective is not None}


@dataclass(frozen=True, kw_only=True)
class Edge:
    """Where requests come in: HAProxy's names for it, and whether a synthetic probe asks for the service."""

    frontend: str
    backend: str = ""
    probed: bool = False


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """A queue whose length asks for replicas; every process of `reported_by` reports the length of the same queue."""

    metric: str
    reported_by: str
    jobs_per_replica: Fraction


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Between which bounds a service scales, and what asks for replicas; a signal that is None asks for none."""

    min_replicas: int
    max_replicas: int
    in_flight_per_replica: Fraction | None = None
    cpu: Fraction | None = None
    backlog: Backlog | None = None
    #: How long the average CPU is watched, and how long one replica more is given to help.
    cpu_hold: Duration = _FIVE_MINUTES
    scale_out_after: Duration = _FIVE_SECONDS
    scale_in_after: Duration = _FIVE_MINUTES
    #: How many replicas one step adds (or as many as there are, if that is more) and takes away.
    scale_out_step: int = 4
    scale_in_step: int = 1
    #: How long after a step in either direction the next of its kind may follow.
    scale_out_cooldown: Duration = _FIFTEEN_SECONDS
    scale_in_cooldown: Duration = _THIRTY_SECONDS

    def signals(self) -> tuple[str, ...]:
        asked = {"in_flight": self.in_flight_per_replica, "cpu": self.cpu, "backlog": self.backlog}
        return tuple(name for name, signal in asked.items() if signal is not None)


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service; `namespace` is empty outside Kubernetes."""

    name: str
    namespace: str = ""
    objectives: Objectives | None = None
    edge: Edge | None = None
    scaling: Scaling | None = None

    @property
    def identity(self) -> dict[str, str]:
        """The labels that tell it from every other service."""
        namespace = {"namespace": self.namespace} if self.namespace else {}
        return {**namespace, "service": self.name}


@dataclass(frozen=True, kw_only=True)
class Server:
    """What the rules need to know about the Prometheus that evaluates them."""

    retention: Duration
    scrape_interval: Duration
    scrape_timeout: Duration
    sample_limit: int

    def samples(self, window: Duration) -> int:
        """How many samples a window must have before it is believed to be full: nine of ten."""
        return int(window.seconds / self.scrape_interval.seconds * _FULL)


@dataclass(frozen=True, kw_only=True)
class Links:
    """Templates of addresses; see `prometheus.links` for what they may contain."""

    runbooks: str
    dashboards: str
    traces: str
    logs: str


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """What a cluster's autoscaler needs to know: where it asks Prometheus."""

    prometheus_address: str


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The whole of it; `kubernetes` is None when no cluster scales the services."""

    server: Server
    links: Links
    kubernetes: Kubernetes | None = None
    services: dict[str, Service] = field(default_factory=dict)

    def promising(self) -> list[Service]:
        return [service for service in self.services.values() if service.objectives]

    def scaling(self) -> list[Service]:
        return [service for service in self.services.values() if service.scaling]
