"""
Kubernetes' HorizontalPodAutoscaler, as its page documents it, with the same demand as an external metric.

https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details: the metric over what one
replica is to have of it, rounded up; the largest of all metrics; nothing within the tolerance; before scaling down the
highest recommendation of the last five minutes; by default no more than double, or four more, in fifteen seconds.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

SYNC_SECONDS: Final = 15.0
_TOLERANCE: Final = 0.1
_STABILISATION_SECONDS: Final = 300.0
_POLICY_SECONDS: Final = 15.0
_ADDED_REPLICAS: Final = 4
_ADDED_SHARE: Final = 1.0


class Hpa:
    """
    One HorizontalPodAutoscaler with the default behaviour.

    Args:
        min_replicas: never fewer.
        max_replicas: never more.

    """

    def __init__(self, *, min_replicas: int, max_replicas: int) -> None:
        self._min_replicas = min_replicas
        self._max_replicas = max_replicas
        self._recommended: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def sync(self, metrics: Sequence[float | None], current: int, now: float) -> int:
        """
        Decide how many replicas there are to be.

        Args:
            metrics: what each asks for in replicas, unrounded: its value over its target; None: it could not be read.
            current: how many there are to be now.
            now: in seconds.

        """
        if not self._recommended:
            self._recommended.append((now, current))
        recommended = self._recommendation(metrics, current)
        if recommended is None:
            return current
        self._recommended.append((now, recommended))
        while self._recommended[0][0] < now - _STABILISATION_SECONDS:
            self._recommended.popleft()
        stable = recommended
        if recommended < current:
            stable = min(current, max(count for _, count in self._recommended))
        wanted = self._limited(stable, current, now)
        if wanted != current:
            self._changes.append((now, wanted - current))
        return wanted

    def _recommendation(self, metrics: Sequence[float | None], current: int) -> int | None:
        """None: nothing can be read, or what can be read asks for fewer and the rest is unknown."""
        proposals = [
            current if abs(metric / current - 1) <= _TOLERANCE else math.ceil(metric)
            for metric in metrics
            if metric is not None
        ]
        if not proposals or (None in metrics and max(proposals) < current):
            return None
        return max(proposals)

    def _limited(self, wanted: int, current: int, now: float) -> int:
        while self._changes and self._changes[0][0] <= now - _POLICY_SECONDS:
            self._changes.popleft()
        before = current - sum(change for _, change in self._changes)
        most = max(before + _ADDED_REPLICAS, math.ceil(before * (1 + _ADDED_SHARE)))
        if wanted > current:
            wanted = min(wanted, max(most, current))
        return min(max(wanted, self._min_replicas), self._max_replicas)
