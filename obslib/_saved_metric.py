"""A metric as a file holds it, so that another process can go on with it or show it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from obslib._saved_values import SavedValue, read_count, read_histogram, read_number

Kind = Literal["counter", "gauge", "histogram", "info"]
#: The kinds whose numbers only go up, and so outlive the process that counted.
CUMULATIVE: Final = frozenset({"counter", "histogram"})


@dataclass(frozen=True)
class SavedMetric:
    """What one metric was, and the numbers of its label sets."""

    kind: Kind
    name: str
    documentation: str
    label_names: tuple[str, ...]
    #: Upper bounds of a histogram's buckets but the last one.
    bounds: tuple[float, ...]
    children: tuple[tuple[tuple[str, ...], SavedValue], ...]

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "SavedMetric":
        """
        Read what orjson has made of one.

        Raises:
            ValueError: It is none.
        """
        try:
            kind, label_names = saved["kind"], _texts(saved["label_names"])
            if kind not in get_args(Kind):
                raise ValueError(f"{kind!r} is no kind of metric.")
            bounds = tuple(read_number(bound) for bound in saved["bounds"])
            children = tuple((_texts(values), number) for values, number in saved["children"])
            for values, number in children:
                if len(values) != len(label_names):
                    raise ValueError(f"{values!r} are no values of {label_names!r}.")
                _check(kind, number, bounds)
            name, documentation = _texts([saved["name"], saved["documentation"]])
        except (LookupError, TypeError) as error:
            raise ValueError(f"This is no metric: {error!r}.") from error
        return cls(kind, name, documentation, label_names, bounds, children)


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{values!r} are no texts.")
    return tuple(values)


def _check(kind: Kind, number: SavedValue, bounds: tuple[float, ...]) -> None:
    if kind == "histogram":
        read_histogram(number, len(bounds) + 1)
    elif kind == "counter":
        read_count(number)
    else:
        read_number(number)
