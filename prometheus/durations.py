"""Lengths of time as Prometheus writes them, and the clock that can make all of them shorter."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_PARTS: Final = re.compile(r"(\d+)(ms|[wdhms])")
_WHOLE: Final = re.compile(r"(?:\d+(?:ms|[wdhms]))+")


@dataclass(frozen=True, order=True)
class Duration:
    """A length of time; its text is Prometheus' own: `5m`, `1d12h`, `250ms`."""

    milliseconds: int

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """
        Read `30s`, `1h30m`, `1w`.

        Raises:
            ValueError: it is no duration, or zero.

        """
        units = {"w": 7 * _UNITS["d"], **_UNITS}
        if not _WHOLE.fullmatch(text):
            raise ValueError(f"{text!r} is no duration; write one as 30s, 5m, 6h or 7d")
        total = sum(int(number) * units[unit] for number, unit in _PARTS.findall(text))
        if total == 0:
            raise ValueError(f"{text!r} is no time at all; write a duration above zero")
        return cls(total)

    @property
    def seconds(self) -> Fraction:
        return Fraction(self.milliseconds, 1000)

    def __str__(self) -> str:
        rest, text = self.milliseconds, ""
        for unit, size in _UNITS.items():
            count, rest = divmod(rest, size)
            text += f"{count}{unit}" if count else ""
        return text


@dataclass(frozen=True)
class Clock:
    """
    Gives every duration in a rule, shortened for tests that run through days in minutes.

    Args:
        scale: 1 for production; 1/20 makes five minutes 15 seconds.

    """

    scale: Fraction = Fraction(1)

    def __call__(self, length: str | Duration) -> Duration:
        """The duration a rule uses, at least a millisecond."""
        nominal = length if isinstance(length, Duration) else Duration.parse(length)
        return Duration(max(1, round(nominal.milliseconds * self.scale)))

    def seconds(self, length: str | Duration) -> str:
        """The same as a number of seconds, where PromQL wants a number."""
        return decimal(self(length).seconds)


def decimal(number: Fraction) -> str:
    """A number in decimals, without the noise a float would add: 14.4 x 0.001 is 0.0144."""
    text = f"{float(number):.12f}".rstrip("0").rstrip(".")
    return text or "0"
