"""How many requests a second the load generator sends, second by second."""

import math
from typing import Literal

from demo_service.capacity import Capacity

Shape = Literal["steady", "spike", "wave"]


def target_rps(shape: Shape, elapsed_seconds: float, *, capacity: Capacity, rate_rps: float | None = None) -> float:
    """
    Return the rate at a moment.

    Args:
        shape: `steady` keeps one rate; `spike` begins with one and alternates it with steady load; `wave` is a sine.
        elapsed_seconds: Since the load began.
        capacity: Holds the rates and periods.
        rate_rps: Replaces the steady rate, or the highest one of the other shapes.
    """
    if shape == "steady":
        return rate_rps or capacity.steady_rps
    if shape == "spike":
        period_seconds = capacity.spike_seconds + capacity.spike_rest_seconds
        in_spike = elapsed_seconds % period_seconds < capacity.spike_seconds
        return (rate_rps or capacity.spike_rps) if in_spike else capacity.steady_rps
    high = rate_rps or capacity.wave_high_rps
    low = min(capacity.wave_low_rps, high)
    phase = 2 * math.pi * elapsed_seconds / capacity.wave_period_seconds
    return low + (high - low) * (1 - math.cos(phase)) / 2
