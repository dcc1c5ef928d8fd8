"""What goes wrong in a simulated run, and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """One thing that can go wrong for a while."""

    #: Prometheus scrapes nothing, evaluates nothing, and answers nobody.
    PROMETHEUS_DEAD = "prometheus_dead"
    #: One replica answers no scrape.
    SCRAPES_MISSED = "scrapes_missed"
    #: The signal that reacts at once (requests in flight, backlog) is reported by nobody.
    DEMAND_LOST = "demand_lost"
    #: Nobody reports CPU time.
    CPU_LOST = "cpu_lost"
    #: An error budget burns: the alert fires.
    BURNING = "burning"
    #: The actuator says nothing.
    ACTUATOR_SILENT = "actuator_silent"
    #: The actuator refuses every order.
    ACTUATOR_REFUSES = "actuator_refuses"
    #: The actuator takes orders and carries none out.
    ACTUATOR_HANGS = "actuator_hangs"
    #: Replicas that are started do not become ready.
    NEVER_READY = "never_ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A fault from one moment until before another, in seconds since the run began."""

    fault: Fault
    begin_seconds: float
    end_seconds: float


class Faults:
    """
    All that goes wrong.

    Args:
        periods: in any order; they may overlap.
        restarts: when the autoscaler is started again, without what it knew.

    """

    def __init__(self, periods: Sequence[Period] = (), restarts: Sequence[float] = ()) -> None:
        self.periods = periods
        self.restarts = restarts
        self._times: dict[Fault, list[Period]] = {}
        for period in periods:
            self._times.setdefault(period.fault, []).append(period)

    def at(self, fault: Fault, now: float) -> bool:
        """Whether something is wrong at a moment."""
        times = self._times.get(fault)
        return times is not None and any(period.begin_seconds <= now < period.end_seconds for period in times)
