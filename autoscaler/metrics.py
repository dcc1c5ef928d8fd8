"""What the autoscaler says about itself. Every label has few, known values, each with its series from the start."""

import math
from collections.abc import Sequence
from typing import Final

import obslib
from autoscaler.decide import Decision, Direction, Override, Reason
from autoscaler.prometheus_api import OVERRIDE_REPLICAS, OVERRIDE_SET, OVERRIDE_UNTIL, Flaw
from autoscaler.wakes import TIMED_PATHS, Path
from prometheus import foreign

_STEPS: Final = {
    Direction.OUT: (Reason.DEMAND, Reason.BELOW_MINIMUM, Reason.PINNED),
    Direction.IN: (Reason.DEMAND, Reason.PINNED),
}
_REACTION_BUCKETS_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Rejection:
    """Why a webhook was not taken, as a label."""

    UNAUTHENTICATED: Final = "unauthenticated"
    TOO_LARGE: Final = "too_large"
    MALFORMED: Final = "malformed"
    UNKNOWN_SERVICE: Final = "unknown_service"
    ALL: Final = (UNAUTHENTICATED, TOO_LARGE, MALFORMED, UNKNOWN_SERVICE)


class Metrics:
    """
    The autoscaler's own series.

    Args:
        obs: makes them.
        services: the names of those that scale.
        owns_replicas: whether the number of replicas is ours to tell.

    """

    def __init__(self, obs: obslib.Observability, services: Sequence[str], *, owns_replicas: bool) -> None:
        service = ("service",)
        self._running = (
            obs.gauge(
                foreign.AUTOSCALER_REPLICAS,
                "Replicas there are, those that start or drain included; NaN while nobody knows.",
                labels=service,
            )
            if owns_replicas
            else None
        )
        self._desired = obs.gauge(foreign.AUTOSCALER_DESIRED, "Replicas ordered last, or kept.", labels=service)
        self._decisions = obs.counter(
            foreign.AUTOSCALER_DECISIONS,
            "Decisions made.",
            labels=("service", foreign.LABEL_DIRECTION, foreign.LABEL_REASON),
        )
        self._reaction = obs.histogram(
            foreign.AUTOSCALER_REACTION,
            "Seconds from being woken until an order to add replicas was accepted.",
            labels=("service", foreign.LABEL_PATH),
            buckets=_REACTION_BUCKETS_SECONDS,
        )
        self._rejected = obs.counter(
            foreign.AUTOSCALER_REJECTED,
            "Webhooks, or alerts in them, that were not taken.",
            labels=(foreign.LABEL_REASON,),
        )
        self._woken = obs.counter(
            foreign.AUTOSCALER_WAKES, "Reasons to look at a service.", labels=("service", foreign.LABEL_PATH)
        )
        self._actuator_failures = obs.counter(
            foreign.AUTOSCALER_ACTUATOR_FAILURES, "Orders that came to nothing.", labels=service
        )
        self._prometheus_failures = obs.counter(
            foreign.AUTOSCALER_PROMETHEUS_FAILURES,
            "Questions that Prometheus gave no usable answer to.",
            labels=(foreign.LABEL_REASON,),
        )
        self._override_until = obs.gauge(
            OVERRIDE_UNTIL, "When a person's order expires; 0 without one.", labels=service
        )
        self._override_set = obs.gauge(OVERRIDE_SET, "When a person last ordered, or withdrew it.", labels=service)
        self._override_replicas = obs.gauge(
            OVERRIDE_REPLICAS, "Replicas a person ordered; NaN where everything is to stay as it is.", labels=service
        )
        self._give_birth(services)

    def _give_birth(self, services: Sequence[str]) -> None:
        holds = (Direction.HOLD, tuple(Reason))
        for name in services:
            for direction, reasons in (*_STEPS.items(), holds):
                for reason in reasons:
                    self._decisions.labels(name, direction, reason)
            for path in Path:
                self._woken.labels(name, path)
            for path in TIMED_PATHS:
                self._reaction.labels(name, path)
            self._actuator_failures.labels(name)
        for flaw in Flaw:
            self._prometheus_failures.labels(flaw)
        for rejection in Rejection.ALL:
            self._rejected.labels(rejection)

    def rejected(self, reason: str) -> None:
        """Count a webhook, or an alert in one, that was not taken."""
        self._rejected.labels(reason).inc()

    def woken(self, service: str, path: Path) -> None:
        """Count a reason to look."""
        self._woken.labels(service, path).inc()

    def running(self, service: str, replicas: int | None) -> None:
        """Say how many replicas there are."""
        if self._running is not None:
            self._running.labels(service).set(math.nan if replicas is None else replicas)

    def decided(self, service: str, decision: Decision, kept: int | None) -> None:
        """
        Count a decision.

        Args:
            service: whose.
            decision: what is to be done.
            kept: what was ordered before; None: unknown.

        """
        self._decisions.labels(service, decision.direction, decision.reason).inc()
        ordered = decision.target if decision.target is not None else kept
        if ordered is not None:
            self._desired.labels(service).set(ordered)

    def reacted(self, service: str, path: Path, seconds: float) -> None:
        """Time an order to add replicas."""
        self._reaction.labels(service, path).observe(seconds)

    def actuator_failed(self, service: str) -> None:
        """Count an order that came to nothing."""
        self._actuator_failures.labels(service).inc()

    def prometheus_failed(self, flaw: Flaw) -> None:
        """Count a question without an answer."""
        self._prometheus_failures.labels(flaw).inc()

    def overridden(self, service: str, override: Override | None, at_seconds: float) -> None:
        """Say what a person ordered: after a restart it is read back from Prometheus."""
        replicas = override.replicas if override else None
        self._override_until.labels(service).set(override.until_seconds if override else 0)
        self._override_set.labels(service).set(at_seconds)
        self._override_replicas.labels(service).set(math.nan if replicas is None else replicas)
