"""Prometheus metrics with exemplars, JSON logs and OpenTelemetry traces for FastAPI and Starlette, in one line.

>>> import obslib
>>> observability = obslib.instrument(app)  # doctest: +SKIP
"""

import typing as _typing

from obslib import exceptions, names
from obslib._get_logger import get_logger
from obslib._record import bind, request_id
from obslib._version import __version__
from obslib.settings import Settings

if _typing.TYPE_CHECKING:
    from obslib._instrument import instrument, instrument_process
    from obslib._observability import Observability

__all__ = [
    "Observability",
    "Settings",
    "__version__",
    "bind",
    "exceptions",
    "get_logger",
    "instrument",
    "instrument_process",
    "names",
    "request_id",
]


# Type checkers would take any name for one of obslib's.
if not _typing.TYPE_CHECKING:  # pragma: no branch

    def __getattr__(name: str) -> object:
        """Import what sets telemetry up where somebody does: modules that only log or bind need not wait for it."""
        if name in {"instrument", "instrument_process"}:
            from obslib import _instrument as module  # noqa: PLC0415 -- this is the place to
        elif name == "Observability":
            from obslib import _observability as module  # type: ignore[no-redef]  # noqa: PLC0415 -- likewise
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(module, name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
