"""Medians with bounds: how sure a figure of a few noisy rounds is."""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_RESAMPLES: Final = 4000
_SEED: Final = 4


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A median and its 95 % bootstrap interval."""

    median: float
    low: float
    high: float
    rounds: int

    def scaled(self, factor: float) -> "Estimate":
        """The same in another unit."""
        return Estimate(median=self.median * factor, low=self.low * factor, high=self.high * factor, rounds=self.rounds)


def estimate(values: Sequence[float]) -> Estimate:
    """
    Estimate the median of what the rounds gave.

    Args:
        values: One a round; at least one.

    """
    chance = random.Random(_SEED)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return Estimate(
        median=statistics.median(values),
        low=medians[int(0.025 * _RESAMPLES)],
        high=medians[int(0.975 * _RESAMPLES)],
        rounds=len(values),
    )
