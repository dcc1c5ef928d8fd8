"""
The recording rules of `prometheus.scaling`, in Python.

tests/integration/test_simulated_rules.py holds every value against what the generated rules record of the same samples.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from autoscaler.decide import Sample
from prometheus import recorded
from prometheus.durations import Clock, decimal
from prometheus.policy import Scaling, Server, Service

IN_FLIGHT: Final = "in_flight"
CPU: Final = "cpu"
BACKLOG: Final = "backlog"

_TOLERANCE: Final = 1.1
#: For so long Prometheus takes the newest sample for the present one, unless the series was seen to end.
_LOOKBACK_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What so many replicas report alike, each of them."""

    value: float
    replicas: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """
    What Prometheus has of a service when it evaluates the rules.

    Args:
        reported: how many replicas run, as whoever starts them says; None: nobody says.
        discovered: how many targets there are, up or not.
        up: how many of them have answered the last scrape.
        in_flight: requests in flight, by replica.
        queue: what waits in the load balancer, by balancer.
        cpu: the rate of each replica's CPU time, in cores.
        cpu_usable: how many cores all of them can use; None: unknown.
        backlog: the queue's length, by process that reports it.

    """

    reported: float | None = None
    discovered: int = 0
    up: int = 0
    in_flight: Sequence[Reported] = ()
    queue: Sequence[float] = ()
    cpu: Sequence[Reported] = ()
    cpu_usable: float | None = None
    backlog: Sequence[Reported] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What one evaluation has recorded, None where it has recorded nothing; each field is a series of `recorded`."""

    at_seconds: float
    up: int | None
    running: float | None
    cpu_needed: float | None
    demand: Mapping[str, float]
    reporting: Mapping[str, int]
    complete: int | None
    wanted: float | None
    chosen: float | None
    desired: float | None

    def series(self) -> dict[tuple[str, str], float | None]:
        """Each value by the series' name and its signal; the signal is empty where there is none."""
        plain = {
            recorded.UP: self.up,
            recorded.SCALE_RUNNING: self.running,
            recorded.SCALE_CPU_NEEDED: self.cpu_needed,
            recorded.SCALE_DEMAND_COMPLETE: self.complete,
            recorded.SCALE_WANTED: self.wanted,
            recorded.SCALE_CHOSEN: self.chosen,
            recorded.SCALE_DESIRED: self.desired,
        }
        signals = (IN_FLIGHT, CPU, BACKLOG)
        return {
            **{(name, ""): value for name, value in plain.items()},
            **{(recorded.SCALE_DEMAND, signal): self.demand.get(signal) for signal in signals},
            **{(recorded.SCALE_REPORTING, signal): self.reporting.get(signal) for signal in signals},
        }


@dataclass(slots=True, kw_only=True)
class Past:
    """What the rules read of their own earlier values."""

    desired: Sample | None = None
    running: deque[Sample] = field(default_factory=deque)


class Rules:
    """
    The rules for one service.

    Args:
        service: the one; it scales.
        server: how often they are evaluated.
        clock: the time scale they were generated for.

    """

    def __init__(self, service: Service, server: Server, clock: Clock) -> None:
        assert service.scaling is not None
        scaling: Scaling = service.scaling
        self.hold_seconds = float(clock(scaling.cpu_hold).seconds)
        self._scaling = scaling
        self._hold_samples = server.samples(scaling.cpu_hold)
        self._queues = service.edge is not None and bool(service.edge.backend)
        self._expected = len(scaling.signals())
        targets = {
            IN_FLIGHT: scaling.in_flight_per_replica,
            CPU: scaling.cpu,
            BACKLOG: scaling.backlog.jobs_per_replica if scaling.backlog else None,
        }
        self._targets = {signal: float(decimal(target)) for signal, target in targets.items() if target is not None}

    def record(self, scraped: Scraped, past: Past, now: float) -> Recorded:
        """
        Evaluate all rules once.

        Args:
            scraped: what there is to read.
            past: their own earlier values; those of this evaluation are added.
            now: when, in seconds.

        """
        running = scraped.reported if scraped.reported is not None else _count(scraped.discovered)
        _remember(past, running, now, self.hold_seconds)
        up = _count(scraped.up)
        needed: float | None = None
        demand: dict[str, float] = {}
        reporting: dict[str, int] = {}
        scaling = self._scaling
        if scaling.in_flight_per_replica is not None:
            self._in_flight(scraped, demand, reporting)
        if scaling.cpu is not None:
            needed = self._cpu(scraped, running, past, demand, reporting)
        if scaling.backlog is not None:
            _backlog(scraped, self._targets[BACKLOG], demand, reporting)
        complete = _complete(demand, reporting, up)
        wanted = _wanted(demand, running)
        chosen = self._chosen(wanted, complete, up, running, _held(past, now, running))
        desired = None if chosen is None else float(min(max(chosen, scaling.min_replicas), scaling.max_replicas))
        past.desired = None if desired is None else Sample(at_seconds=now, value=desired)
        return Recorded(
            at_seconds=now,
            up=up,
            running=running,
            cpu_needed=needed,
            demand=demand,
            reporting=reporting,
            complete=complete,
            wanted=wanted,
            chosen=chosen,
            desired=desired,
        )

    def _in_flight(self, scraped: Scraped, demand: dict[str, float], reporting: dict[str, int]) -> None:
        per_replica = self._targets[IN_FLIGHT]
        active = [part for part in scraped.in_flight if _finite(part.value)]
        if not active:
            return
        requests = sum(part.value * part.replicas for part in active)
        replicas = sum(part.replicas for part in active)
        if not self._queues:
            demand[IN_FLIGHT], reporting[IN_FLIGHT] = requests / per_replica, replicas
            return
        queue = [length for length in scraped.queue if _finite(length)]
        demand[IN_FLIGHT] = (requests + sum(queue)) / per_replica
        # A queue that nobody reports adds nothing to the demand, and makes the signal incomplete.
        if queue:
            reporting[IN_FLIGHT] = replicas

    def _cpu(
        self,
        scraped: Scraped,
        running: float | None,
        past: Past,
        demand: dict[str, float],
        reporting: dict[str, int],
    ) -> float | None:
        used = [part for part in scraped.cpu if _finite(part.value)]
        if not used:
            return None
        reporting[CPU] = sum(part.replicas for part in used)
        if running is None or scraped.cpu_usable is None or not scraped.cpu_usable > 0:
            return None
        needed = running * (sum(part.value * part.replicas for part in used) / scraped.cpu_usable) / self._targets[CPU]
        if needed <= running:
            demand[CPU] = needed
        elif len(past.running) >= self._hold_samples and len({sample.value for sample in past.running}) == 1:
            demand[CPU] = running + 1
        else:
            demand[CPU] = running
        return needed

    def _chosen(
        self, wanted: float | None, complete: int | None, up: int | None, running: float | None, held: float | None
    ) -> float | None:
        if running is None or not running > 0:
            return None
        if wanted is not None and complete == self._expected and up == running:
            return wanted
        if wanted is not None and held is not None and wanted > held:
            return wanted
        return held


def _finite(value: float) -> bool:
    return 0 <= value < math.inf


def _count(number: int) -> int | None:
    # `count` of nothing is nothing, and not zero.
    return number or None


def _remember(past: Past, running: float | None, now: float, hold_seconds: float) -> None:
    if running is not None:
        past.running.append(Sample(at_seconds=now, value=running))
    while past.running and past.running[0].at_seconds <= now - hold_seconds:
        past.running.popleft()


def _held(past: Past, now: float, running: float | None) -> float | None:
    """What was desired a moment ago; at the very first, what runs."""
    if past.desired is not None and now - past.desired.at_seconds < _LOOKBACK_SECONDS:
        return past.desired.value
    return running


def _backlog(scraped: Scraped, per_replica: float, demand: dict[str, float], reporting: dict[str, int]) -> None:
    lengths = [part for part in scraped.backlog if _finite(part.value)]
    if lengths:
        demand[BACKLOG] = max(part.value for part in lengths) / per_replica
        reporting[BACKLOG] = sum(part.replicas for part in lengths)


def _complete(demand: Mapping[str, float], reporting: Mapping[str, int], up: int | None) -> int | None:
    whole = [signal for signal in demand if signal == BACKLOG or (up is not None and reporting.get(signal, -1) >= up)]
    return _count(len(whole))


def _wanted(demand: Mapping[str, float], running: float | None) -> float | None:
    if not demand:
        return None
    most = max(demand.values())
    is_hot = running is not None and demand.get(CPU, 0.0) > running
    if running is not None and running < most <= _TOLERANCE * running and not is_hot:
        return running
    return float(math.ceil(most))
