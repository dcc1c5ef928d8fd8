"""Medians with bounds: how sure a figure of a few noisy rounds is."""

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_RESAMPLES: Final = 2000
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
    return bootstrapped(
        statistics.median(values),
        lambda chance: statistics.median(chance.choices(values, k=len(values))),
        len(values),
    )


def bootstrapped(found: float, resample: Callable[[random.Random], float], rounds: int) -> Estimate:
    """
    Put the 95 % bounds of what resampling gives around what was found.

    Args:
        found: The figure of all that was measured.
        resample: The same figure of a sample drawn from it.
        rounds: How many rounds stand behind it.
    """
    chance = random.Random(_SEED)
    figures = sorted(resample(chance) for _ in range(_RESAMPLES))
    return Estimate(
        median=found, low=figures[int(0.025 * _RESAMPLES)], high=figures[int(0.975 * _RESAMPLES)], rounds=rounds
    )
