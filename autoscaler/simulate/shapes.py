"""Demands to simulate: built-in shapes, and traces from files."""

import csv
import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

_HEADER: Final = ["seconds", "demand"]
_NOISE: Final = 0.1
_NOISE_SECONDS: Final = 5
_WAVE_SECONDS: Final = 1800.0
_SAWTOOTH_SECONDS: Final = 300.0


class TraceError(Exception):
    """A demand cannot be read; the sentence names the line and the fix."""


# Each as a share of the highest demand, at a moment of a run of some length.


def _spike(now: float, length: float) -> float:
    return 1.0 if 0.2 * length <= now < 0.5 * length else 0.1


def _step(now: float, length: float) -> float:
    return 0.8 if now >= 0.2 * length else 0.1


def _wave(now: float, _: float) -> float:
    return 0.1 + 0.9 * (1 - math.cos(2 * math.pi * now / _WAVE_SECONDS)) / 2


def _ramp(now: float, length: float) -> float:
    return 0.05 + 0.95 * now / length


def _daily(now: float, length: float) -> float:
    """A day, run through in the length of the run: quiet at night, two peaks, a dip at noon."""
    hour = 24 * now / length
    morning, evening = math.exp(-(((hour - 11) / 2.5) ** 2)), math.exp(-(((hour - 19) / 2.5) ** 2))
    return 0.05 + 0.75 * morning + 0.95 * evening


def _sawtooth(now: float, _: float) -> float:
    return 0.1 + 0.9 * (now % _SAWTOOTH_SECONDS) / _SAWTOOTH_SECONDS


def _idle(_: float, __: float) -> float:
    return 0.0


_SHAPES: Final[Mapping[str, Callable[[float, float], float]]] = {
    "spike": _spike,
    "step": _step,
    "wave": _wave,
    "wave-noise": _wave,
    "ramp": _ramp,
    "daily": _daily,
    "sawtooth": _sawtooth,
    "idle": _idle,
}
NAMES: Final = tuple(_SHAPES)
_NOISY: Final = frozenset({"wave-noise"})


def shape(name: str, *, highest: float, length_seconds: float, step_seconds: float, seed: int) -> list[float]:
    """
    One of the built-in shapes.

    Args:
        name: one of `NAMES`.
        highest: its highest demand, before noise.
        length_seconds: how long it is.
        step_seconds: how far apart its values are.
        seed: decides the noise.

    """
    drawn, share = random.Random(seed), _SHAPES[name]
    values: list[float] = []
    noise = 1.0
    for step in range(math.ceil(length_seconds / step_seconds)):
        now = step * step_seconds
        if name in _NOISY and now % _NOISE_SECONDS < step_seconds:
            noise = drawn.uniform(1 - _NOISE, 1 + _NOISE)
        values.append(highest * share(now, length_seconds) * noise)
    return values


def read_csv(path: Path, step_seconds: float) -> list[float]:
    """
    A recorded demand; each row holds until the next one, the last for as long as the one before it.

    Args:
        path: a file with the header `seconds,demand`.
        step_seconds: how far apart the values are to be.

    Raises:
        TraceError: the file cannot be used.

    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path} cannot be read as CSV: {error}") from None
    if not lines or [cell.strip() for cell in lines[0]] != _HEADER:
        raise TraceError(f"{path}:1: the header must be {','.join(_HEADER)}.")
    places = [(number, cells) for number, cells in enumerate(lines[1:], 2) if cells]
    rows = [_row(path, number, cells) for number, cells in places]
    if len(rows) < 2:
        raise TraceError(f"{path}: there are {len(rows)} rows, and at least two are needed.")
    for (before, after), (number, _) in zip(pairwise(rows), places[1:], strict=True):
        if after[0] <= before[0]:
            raise TraceError(f"{path}:{number}: {after[0]:g} s is not after {before[0]:g} s; sort the rows by time.")
    return _resampled(rows, step_seconds)


def _row(path: Path, line: int, cells: Sequence[str]) -> tuple[float, float]:
    if len(cells) != 2:
        raise TraceError(f"{path}:{line}: there are {len(cells)} cells; write seconds,demand.")
    try:
        seconds, demand = float(cells[0]), float(cells[1])
    except ValueError:
        raise TraceError(f"{path}:{line}: {','.join(cells)!r} are not two numbers.") from None
    if not math.isfinite(seconds) or not 0 <= demand < math.inf:
        raise TraceError(f"{path}:{line}: {','.join(cells)!r}: time must be finite, and demand 0 or more.")
    return seconds, demand


def _resampled(rows: Sequence[tuple[float, float]], step_seconds: float) -> list[float]:
    begin, end = rows[0][0], 2 * rows[-1][0] - rows[-2][0]
    values: list[float] = []
    place = 0
    for step in range(math.ceil((end - begin) / step_seconds)):
        now = begin + step * step_seconds
        while place + 1 < len(rows) and rows[place + 1][0] <= now:
            place += 1
        values.append(rows[place][1])
    return values
