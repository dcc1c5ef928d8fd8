"""The autoscaler's loop on a simulated clock: what autoscaler/scaler.py does around `decide`, without its network."""

from typing import Final

from autoscaler.actuators import Replicas
from autoscaler.decide import Decision, Direction, Reason, State, decide, last_rise
from autoscaler.limits import Limits
from autoscaler.simulate.faults import Fault, Faults
from autoscaler.simulate.monitoring import Monitoring
from autoscaler.simulate.replicas import ReplicaSet

_SHORTEST_RETRY_SECONDS: Final = 2.0
_LONGEST_RETRY_SECONDS: Final = 60.0


class Loop:
    """
    Keeps a simulated service at its number of replicas.

    Args:
        limits: its policy.
        monitoring: who knows the demand.
        replicas: who carries out orders.
        faults: what goes wrong.

    """

    def __init__(self, limits: Limits, monitoring: Monitoring, replicas: ReplicaSet, faults: Faults) -> None:
        self._limits = limits
        self._monitoring = monitoring
        self._replicas = replicas
        self._faults = faults
        self._restarts = sorted(faults.restarts, reverse=True)
        self.known: Replicas | None = replicas.replicas()
        self._forget()

    def _forget(self) -> None:
        self._ordered_at: dict[Direction, float] = {}
        self._failures = 0
        self._retry_at: float | None = None

    def look(self, now: float) -> Decision:
        """Look once: decide, and order what was decided."""
        while self._restarts and self._restarts[-1] <= now:
            self._restarts.pop()
            self._forget()
        self.known = None if self._faults.at(Fault.ACTUATOR_SILENT, now) else self._replicas.replicas()
        signals = self._monitoring.signals(now)
        state = State(
            replicas=self.known,
            signals=signals,
            ordered_out_at=self._ordered_at.get(Direction.OUT, last_rise(signals.running)),
            ordered_in_at=self._ordered_at.get(Direction.IN),
            retry_at=self._retry_at,
        )
        decision = decide(state, self._limits, now)
        if decision.target is None:
            return decision
        if self._faults.at(Fault.ACTUATOR_REFUSES, now):
            wait = min(_SHORTEST_RETRY_SECONDS * 2**self._failures, _LONGEST_RETRY_SECONDS)
            self._failures, self._retry_at = self._failures + 1, now + wait
            return Decision(
                direction=Direction.HOLD,
                reason=Reason.ACTUATOR_BACKOFF,
                sentence=f"The order was refused. {decision.sentence}",
                desired=decision.desired,
            )
        self._failures, self._retry_at = 0, None
        self._replicas.order(decision.target)
        self._ordered_at[decision.direction] = now
        return decision
