"""The course of a spike, and how long it broke its promise."""

import math
from dataclasses import dataclass, field
from typing import Final

BOUND_SECONDS: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Course:
    """What happened around a spike, second by second."""

    at_seconds: list[float] = field(default_factory=list)
    p95_seconds: list[float | None] = field(default_factory=list)
    replicas: list[int] = field(default_factory=list)


def seconds_above(found: Course) -> float:
    """From the spike until p95 is under the bound again for good; infinite when it never is."""
    over = [
        at
        for at, p95 in zip(found.at_seconds, found.p95_seconds, strict=True)
        if at >= 0 and p95 is not None and p95 > BOUND_SECONDS
    ]
    if not over:
        return 0.0
    return math.inf if over[-1] >= found.at_seconds[-1] - 2 else over[-1]
