"""What a simulated run comes to, in numbers, and two runs side by side."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final, Self

from autoscaler.simulate.run import Order, Run
from autoscaler.simulate.world import Capacity

#: A step that is taken back so soon was not needed, or should not have been undone.
_FLAP_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """
    What a run comes to.

    Args:
        replica_hours: what was paid for.
        violation_seconds: how long the service was overloaded, or answered too late.
        shortage_seconds: the longest time in which less could be served than was demanded; infinite: to the end.
        scale_outs: how often more were ordered.
        scale_ins: how often fewer were.
        flaps: orders within five minutes of one in the other direction.
        out_of_bounds: moments with fewer or more replicas than the policy allows.
        busy_share: what part of what served was busy, on average.

    """

    replica_hours: float
    violation_seconds: float
    shortage_seconds: float
    scale_outs: int
    scale_ins: int
    flaps: int
    out_of_bounds: int
    busy_share: float

    @classmethod
    def of(cls, run: Run) -> Self:
        """Measure a run."""
        setup, seconds = run.setup, run.setup.step_seconds
        allowed = range(setup.scaling.min_replicas, setup.scaling.max_replicas + 1)
        rises = [order.after > order.before for order in run.orders]
        return cls(
            replica_hours=sum(run.running) * seconds / 3600,
            violation_seconds=sum(run.violated) * seconds,
            shortage_seconds=_longest_shortage(run),
            scale_outs=rises.count(True),
            scale_ins=rises.count(False),
            flaps=_flaps(run.orders),
            out_of_bounds=sum(running not in allowed for running in run.running),
            busy_share=math.fsum(run.busy_share) / len(run.busy_share),
        )

    def as_json(self) -> dict[str, Any]:  # Any: numbers and null
        """The same for programs; JSON has no infinity: a shortage to the end is null."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def _longest_shortage(run: Run) -> float:
    slots = Capacity.of(run.setup.service).slots
    longest = current = 0
    for demand, serving in zip(run.setup.demand, run.serving, strict=True):
        current = current + 1 if demand > serving * slots else 0
        longest = max(longest, current)
    return math.inf if current else longest * run.setup.step_seconds


def _flaps(orders: Sequence[Order]) -> int:
    return sum(
        (before.after > before.before) != (after.after > after.before)
        and after.at_seconds - before.at_seconds < _FLAP_SECONDS
        for before, after in pairwise(orders)
    )


def table(runs: Sequence[Run]) -> str:
    """
    Runs side by side.

    Args:
        runs: of the same setup.

    """
    measured = [Measures.of(run) for run in runs]
    rows = [
        ("", [run.name for run in runs]),
        ("replica-hours", [f"{found.replica_hours:.2f}" for found in measured]),
        ("violated, s", [f"{found.violation_seconds:g}" for found in measured]),
        ("longest shortage, s", [_shortage(found.shortage_seconds) for found in measured]),
        ("scale-outs", [str(found.scale_outs) for found in measured]),
        ("scale-ins", [str(found.scale_ins) for found in measured]),
        ("flaps", [str(found.flaps) for found in measured]),
        ("moments out of bounds", [str(found.out_of_bounds) for found in measured]),
        ("busy on average", [f"{found.busy_share:.0%}" for found in measured]),
    ]
    first = max(len(title) for title, _ in rows)
    width = max(len(cell) for _, cells in rows for cell in cells)
    return "\n".join(
        f"{title:{first}}  {'  '.join(f'{cell:>{width}}' for cell in cells)}".rstrip() for title, cells in rows
    )


def _shortage(seconds: float) -> str:
    return f"{seconds:g}" if math.isfinite(seconds) else "to the end"
