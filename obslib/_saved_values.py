"""The numbers of a label set as a file holds them. What is read is not trusted: all of it raises ValueError."""

import math
from collections.abc import Sequence
from typing import Any, Final

#: One number; of a histogram counts, sum and exemplars. JSON has no infinities: those are texts.
SavedValue = float | str | Sequence[Any]
#: Trace id, span id, the value and when, in seconds since 1970.
KeptExemplar = tuple[str, str, float, float]

_ID_DIGITS: Final = 32, 16
_HEXADECIMAL: Final = frozenset("0123456789abcdef")


def to_json(value: float) -> float | str:
    """Return a number as JSON can hold it."""
    return value if math.isfinite(value) else repr(value)


def read_number(saved: object) -> float:
    """Return the number that `to_json` was given."""
    if isinstance(saved, bool) or not isinstance(saved, int | float | str):
        raise ValueError(f"{saved!r} is no number.")  # noqa: TRY004 -- whoever reads a file expects one kind of error
    return float(saved)


def read_count(saved: object) -> float:
    """Return a number that counts something."""
    count = read_number(saved)
    if not count >= 0:
        raise ValueError(f"{saved!r} is no count.")
    return count


def read_histogram(saved: object, buckets: int) -> tuple[list[int], float, list[KeptExemplar | None]]:
    """Return the counts, the sum and the exemplars of so many buckets."""
    if not isinstance(saved, list | tuple) or len(saved) != len(("counts", "sum", "exemplars")):
        raise ValueError(f"{saved!r} is no histogram.")
    counts, total, exemplars = saved
    for part in (counts, exemplars):
        if not isinstance(part, list) or len(part) != buckets:
            raise ValueError(f"{part!r} has no item for each of {buckets} buckets.")
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"{counts!r} are no counts.")
    return counts, read_number(total), [None if kept is None else _exemplar(kept) for kept in exemplars]


def _exemplar(saved: object) -> KeptExemplar:
    if not isinstance(saved, list | tuple) or len(saved) != len(("trace_id", "span_id", "value", "unix_seconds")):
        raise ValueError(f"{saved!r} is no exemplar.")
    *ids, value, unix_seconds = saved
    for text, length in zip(ids, _ID_DIGITS, strict=True):
        if not isinstance(text, str) or len(text) != length or not set(text) <= _HEXADECIMAL:
            raise ValueError(f"{text!r} is no id.")
    return ids[0], ids[1], read_number(value), read_number(unix_seconds)
