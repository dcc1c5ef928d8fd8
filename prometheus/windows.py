"""The four pairs of windows over which a burning error budget is noticed (Google's SRE workbook, chapter 5)."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Window:
    """
    One pair: the budget burns `factor` times as fast as it may over `long`, and still does over `short`.

    The short one, a twelfth of the long, ends the alert soon after the fault has ended.
    """

    long: str
    short: str
    factor: Fraction
    severity: str


WINDOWS: Final = (
    Window(long="1h", short="5m", factor=Fraction("14.4"), severity="page"),
    Window(long="6h", short="30m", factor=Fraction(6), severity="page"),
    Window(long="1d", short="2h", factor=Fraction(3), severity="ticket"),
    Window(long="3d", short="6h", factor=Fraction(1), severity="ticket"),
)

#: The least number of bad events in a short window: one error on a quiet service is no reason to wake anybody.
MIN_BAD_EVENTS: Final = 5

LARGEST_FACTOR: Final = max(window.factor for window in WINDOWS)
LONGEST: Final = WINDOWS[-1].long
