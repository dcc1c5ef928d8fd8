"""Prometheus metrics with exemplars, JSON logs and OpenTelemetry traces for FastAPI and Starlette, in one line.

>>> import obslib
>>> observability = obslib.instrument(app)  # doctest: +SKIP
"""

from obslib import exceptions, names
from obslib._get_logger import get_logger
from obslib._instrument import instrument, instrument_process
from obslib._observability import Observability
from obslib._record import bind, request_id
from obslib._version import __version__
from obslib.settings import Settings

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
