"""The replicas of a simulated service: they take time to start and to leave, and only some of them serve."""

import math
import random
from dataclasses import dataclass, field
from typing import Final

from autoscaler.actuators import Replicas
from autoscaler.simulate.counter import Counter
from autoscaler.simulate.faults import Fault, Faults

#: From the order until the replica is ready, as measured with the demo's shop.
_START_SECONDS: Final = (4.0, 9.0)
#: From the order until the process ends: the load balancer drains it, and Prometheus reads that it is gone.
_DRAIN_SECONDS: Final = (5.0, 10.0)


@dataclass(slots=True, kw_only=True)
class Cohort:
    """Replicas that were started together: they have done the same, and report the same."""

    count: int
    ready_at: float
    cpu_seconds: float = 0.0
    cpu: Counter = field(default_factory=lambda: Counter(math.inf))


class ReplicaSet:
    """
    Replicas, and the one order that is being carried out.

    A new order is begun when the one before is done. Of several new replicas the first starts alone, as the stack's
    supervisor has it: what cannot start should fail once.

    Args:
        count: how many there are from the start, ready.
        drawn: draws how long starts and drains take.
        faults: what goes wrong.
        rate_window_seconds: how far back their counters of CPU time are asked for.

    """

    def __init__(self, count: int, drawn: random.Random, faults: Faults, rate_window_seconds: float) -> None:
        self.cohorts: list[Cohort] = []
        self._drawn = drawn
        self._faults = faults
        self._rate_window_seconds = rate_window_seconds
        self._draining: list[tuple[float, int]] = []
        self._ordered = count
        self._next_at = -math.inf
        self._first_is_ready = False
        self._start(count, -math.inf)

    def order(self, count: int) -> None:
        """Take an order; the newest one holds."""
        self._ordered = count

    def replicas(self) -> Replicas:
        """What the actuator says of them."""
        return Replicas(running=self.running, target=self._ordered)

    @property
    def running(self) -> int:
        """Those that exist, whether they start, serve or drain."""
        return self._kept + sum(count for _, count in self._draining)

    @property
    def _kept(self) -> int:
        return sum(cohort.count for cohort in self.cohorts)

    def ready(self, now: float) -> list[Cohort]:
        """Those that serve."""
        return [cohort for cohort in self.cohorts if cohort.ready_at <= now]

    def advance(self, now: float) -> None:
        """Go on with what was ordered."""
        if self._draining:
            self._draining = [(end, count) for end, count in self._draining if end > now]
        unready = self._faults.at(Fault.NEVER_READY, now)
        if not unready:
            for cohort in self.cohorts:
                if cohort.ready_at == math.inf:
                    cohort.ready_at = now + self._drawn.uniform(*_START_SECONDS)
        if now < self._next_at or self._ordered == self._kept or self._faults.at(Fault.ACTUATOR_HANGS, now):
            return
        missing = self._ordered - self._kept
        if missing < 0:
            self._next_at = now + self._drawn.uniform(*_DRAIN_SECONDS)
            self._drain(-missing)
            return
        self._next_at = now + self._drawn.uniform(*_START_SECONDS)
        self._start(missing if self._first_is_ready else 1, math.inf if unready else self._next_at)
        self._first_is_ready = not self._first_is_ready and missing > 1

    def _start(self, count: int, ready_at: float) -> None:
        self.cohorts.append(Cohort(count=count, ready_at=ready_at, cpu=Counter(self._rate_window_seconds)))

    def _drain(self, count: int) -> None:
        # The newest go first.
        leaving = count
        while leaving:
            newest = self.cohorts[-1]
            gone = min(leaving, newest.count)
            newest.count -= gone
            leaving -= gone
            if newest.count == 0:
                self.cohorts.pop()
        self._draining.append((self._next_at, count))
