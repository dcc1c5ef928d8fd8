"""
The load on a simulated service: what is offered, what is served, and what waits.

Work is counted in slots: one is what keeps one of a replica's slots busy. What is offered beyond all slots waits inside
the replicas, evenly spread, and counts as in flight: overload is demand that the rules see.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from autoscaler.simulate.replicas import ReplicaSet
from prometheus.policy import Service

#: The part of its slots that a replica is meant to have busy, and what one costs, by demo_service/capacity.py.
TARGET_SHARE: Final = 0.75
_REQUEST_SECONDS: Final = 0.08
_REQUEST_CORES: Final = 0.0042 / _REQUEST_SECONDS
_JOB_CORES: Final = 0.15
_PATIENCE_SECONDS: Final = 10.0
_BOUND_SECONDS: Final = 0.5
#: A queue asks for another replica when it holds so many seconds of one replica's work.
_BACKLOG_SECONDS: Final = 5.0
_IDLE_CORES: Final = 0.02
_ALMOST: Final = 1e-9


class Unit(StrEnum):
    """What a trace counts."""

    #: Offered work: requests a second times the seconds that one takes. What is too much waits, and adds up.
    WORK = "work"
    #: Requests in flight, or jobs in the queue, as they were recorded: nothing adds up.
    IN_FLIGHT = "in-flight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """
    What one replica carries.

    Args:
        slots: how many requests, or jobs, it works on at once.
        busy_seconds: how long one keeps its slot.
        slot_cores: what a busy slot takes of a core.
        patience_seconds: who waits longer gives up.
        bound_seconds: whoever waits longer has been served too late.

    """

    slots: float
    busy_seconds: float
    slot_cores: float
    patience_seconds: float
    bound_seconds: float

    @classmethod
    def of(cls, service: Service) -> Self:
        """What a replica of a service carries, by what its policy aims at: three quarters of its slots."""
        scaling = service.scaling
        assert scaling is not None
        if scaling.in_flight_per_replica is not None:
            promised = service.objectives.latency_bound if service.objectives else None
            return cls(
                slots=float(scaling.in_flight_per_replica) / TARGET_SHARE,
                busy_seconds=_REQUEST_SECONDS,
                slot_cores=_REQUEST_CORES,
                patience_seconds=_PATIENCE_SECONDS,
                bound_seconds=float(promised.seconds) if promised else _BOUND_SECONDS,
            )
        if scaling.backlog is not None:
            return cls(
                slots=1,
                busy_seconds=_BACKLOG_SECONDS / float(scaling.backlog.jobs_per_replica),
                slot_cores=_JOB_CORES,
                patience_seconds=math.inf,
                bound_seconds=2 * _BACKLOG_SECONDS,
            )
        return cls(
            slots=1,
            busy_seconds=_REQUEST_SECONDS,
            slot_cores=1 - _IDLE_CORES,
            patience_seconds=_PATIENCE_SECONDS,
            bound_seconds=_BOUND_SECONDS,
        )


class World:
    """
    A service under load.

    Args:
        replicas: who serves.
        capacity: what each carries.
        unit: what the demand counts.

    """

    def __init__(self, replicas: ReplicaSet, capacity: Capacity, unit: Unit) -> None:
        self._replicas = replicas
        self._capacity = capacity
        self._unit = unit
        self.serving = 0
        self.busy = 0.0
        self.waiting = 0.0
        self.delay_seconds = 0.0
        self.violated = False

    @property
    def slots(self) -> float:
        """What all replicas that serve can work on at once."""
        return self.serving * self._capacity.slots

    def step(self, demand: float, now: float, seconds: float) -> None:
        """
        Serve for a while.

        Args:
            demand: in this time, in the trace's unit.
            now: when it begins.
            seconds: how long it is.

        """
        ready = self._replicas.ready(now)
        self.serving = sum(cohort.count for cohort in ready)
        if self._unit is Unit.WORK:
            self._work(demand, seconds)
        else:
            self.busy = min(demand, self.slots)
            self.waiting = demand - self.busy
        self.delay_seconds = self._delay()
        self.violated = demand > self.slots + _ALMOST or self.delay_seconds > self._capacity.bound_seconds
        each = _IDLE_CORES + (self.busy / self.serving * self._capacity.slot_cores if self.serving else 0)
        for cohort in ready:
            cohort.cpu_seconds += each * seconds

    def _work(self, offered: float, seconds: float) -> None:
        capacity = self._capacity
        there = self.waiting * capacity.busy_seconds + offered * seconds
        done = min(there, self.slots * seconds)
        self.busy = done / seconds
        longest = max(self.slots, offered) * capacity.patience_seconds / capacity.busy_seconds
        self.waiting = min((there - done) / capacity.busy_seconds, longest)

    def _delay(self) -> float:
        if self.waiting <= _ALMOST:
            return 0.0
        return self.waiting * self._capacity.busy_seconds / self.slots if self.serving else math.inf
