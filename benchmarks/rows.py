"""What the bench answers: one row for each promise, with its bar and the peers beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmarks.estimates import Estimate

#: How a figure is written: a cost above the bare application, a ratio, or a duration.
Unit = Literal["cost", "ratio", "milliseconds"]

#: With fewer rounds a bound says nothing.
LEAST_ROUNDS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Row:
    """
    One measure.

    Args:
        measure: What was measured.
        unit: How to write it.
        bar: What the upper bound must not pass; None for rows that only inform.
        ours: obslib's figure.
        peers: Theirs, by title.
    """

    measure: str
    unit: Unit
    bar: float | None
    ours: Estimate
    peers: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def holds(self) -> bool | None:
        """Whether the bar holds; None without one, or without rounds enough for a bound."""
        if self.bar is None or self.ours.rounds < LEAST_ROUNDS:
            return None
        return self.ours.high <= self.bar
