"""One log event → one line of JSON. Anything can be logged; nothing makes it raise."""

import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from obslib import names
from obslib._redaction import CUT, Walk

_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
#: Longer lines are cut at their values, so that one event cannot fill the buffer.
MAX_LINE_BYTES: Final = 256 * 1024
_MAX_VALUE_CHARACTERS: Final = 8 * 1024
_MAX_ITEMS: Final = 256
_SECOND_NS: Final = 1_000_000_000
_SIX_DIGITS: Final = slice(-6, None)


class Clock:
    """Formats wall-clock time as RFC 3339 in UTC with microseconds; the second is formatted once."""

    def __init__(self) -> None:
        #: When the second begins that the text is of.
        self._second_ns = -_SECOND_NS
        self._text = ""

    def format(self, unix_ns: int) -> str:
        """Return e.g. `2026-11-22T09:30:00.000123Z`."""
        past_ns = unix_ns - self._second_ns
        if not 0 <= past_ns < _SECOND_NS:
            second, past_ns = divmod(unix_ns, _SECOND_NS)
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second_ns = unix_ns - past_ns
        # A format with leading zeros costs three times as much.
        return f"{self._text}{str(1_000_000 + past_ns // 1000)[_SIX_DIGITS]}Z"


def exception_values(exception: BaseException) -> dict[str, str]:
    """Return the log keys of an exception."""
    kind = type(exception)
    module = kind.__module__
    return {
        names.LOG_EXCEPTION_TYPE: kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}",
        names.LOG_EXCEPTION_MESSAGE: _text(exception),
        names.LOG_EXCEPTION_STACKTRACE: "".join(traceback.format_exception(exception)),
    }


class JsonRenderer:
    """
    Renders values as one JSON object and a newline.

    Args:
        hide: Hides secrets in what becomes text only here.
    """

    def __init__(self, hide: Callable[[str], str]) -> None:
        self._hide = hide

    def __call__(self, values: dict[str, Any]) -> bytes:
        """Return the line."""
        try:
            line = orjson.dumps(values, default=self._text, option=_OPTIONS)
        except (TypeError, ValueError, RecursionError):
            line = b""
        if 0 < len(line) <= MAX_LINE_BYTES:
            return line
        return orjson.dumps(plain(values, self._hide), option=_OPTIONS)

    def _text(self, value: object) -> str:
        return self._hide(_text(value))


def plain(value: Any, hide: Callable[[str], str]) -> Any:
    """Return what orjson certainly renders: cut to size, cycles and depth ended, invalid Unicode replaced."""
    return _plain(value, Walk(), hide)


def _plain(value: Any, walk: Walk, hide: Callable[[str], str]) -> Any:
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else _text(value)
    if not isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return hide(_text(value))
    if not walk.enter():
        return CUT
    try:
        if isinstance(value, Mapping):
            return {_text(key): _plain(item, walk, hide) for key, item in _first(value.items())}
        return [_plain(item, walk, hide) for item in _first(value)]
    finally:
        walk.leave()


def _first(items: Iterable[Any]) -> list[Any]:
    return [item for item, _ in zip(items, range(_MAX_ITEMS), strict=False)]


def _text(value: object) -> str:
    """Return a text for anything, also for what cannot describe itself."""
    try:
        text = str(value) if isinstance(value, (str, BaseException)) else _repr(value)
    except Exception as error:  # noqa: BLE001 -- a user's __str__ or __repr__ may raise anything
        text = f"<{type(value).__name__}: {type(error).__name__} while it was rendered>"
    if len(text) > _MAX_VALUE_CHARACTERS:
        text = f"{text[:_MAX_VALUE_CHARACTERS]}… ({len(text)} characters)"
    return text.encode("utf-8", "replace").decode()


def _repr(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value[: _MAX_VALUE_CHARACTERS + 1]).decode("utf-8", "backslashreplace")
    return repr(value)
