"""Latencies of many short stretches, put together before a percentile is read from them."""

import math
from collections.abc import Mapping

#: How many requests took so many microseconds.
Microseconds = Mapping[int, int]


def percentile_seconds(counted: Microseconds, part: float) -> float:
    """Return how long the fastest `part` of all requests took at most."""
    left = math.ceil(part * sum(counted.values()))
    for microseconds in sorted(counted):
        left -= counted[microseconds]
        if left <= 0:
            return microseconds / 1e6
    raise ValueError("There are no latencies.")
