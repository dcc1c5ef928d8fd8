"""One log event → one line of JSON. Anything can be logged; nothing makes it raise."""

import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

import orjson

from obslib import names

_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
#: Longer lines are cut at their values, so that one event cannot fill the buffer.
MAX_LINE_BYTES: Final = 256 * 1024
_MAX_VALUE_CHARACTERS: Final = 8 * 1024
_MAX_ITEMS: Final = 256
_MAX_DEPTH: Final = 8
_MAX_CONTAINERS: Final = 1000
_CUT: Final = "…"
_MAX_CACHED_KEYS: Final = 4096
REDACTED: Final = "[REDACTED]"


class Redactor:
    """Decides by key which values are secrets, and remembers the decisions."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = frozenset(key.lower().replace("-", "_") for key in keys)
        self._suffixes = tuple(f"_{key}" for key in self._keys)
        self._known: dict[object, bool] = {}

    def is_secret(self, key: object) -> bool:
        """Tell whether the value under this key must not be shown."""
        known = self._known.get(key)
        if known is None:
            normal = str(key).lower().replace("-", "_")
            known = normal in self._keys or normal.endswith(self._suffixes)
            if len(self._known) < _MAX_CACHED_KEYS:
                self._known[key] = known
        return known

    def redact(self, values: dict[str, Any]) -> dict[str, Any]:
        """Replace secrets in place, in nested mappings in copies of them."""
        for key, value in values.items():
            if self.is_secret(key):
                values[key] = REDACTED
            elif type(value) not in _PLAIN:
                values[key] = self._redact_inside(value)
        return values

    def _redact_inside(self, value: object) -> object:
        try:
            return self._redact_nested(value, _Walk())
        except Exception as error:  # noqa: BLE001 -- a user's class may raise anything when it is looked into
            return f"<{type(value).__name__}: {type(error).__name__} while its secrets were looked for>"

    def _redact_nested(self, value: object, walk: "_Walk") -> object:
        opened = None if type(value) in _PLAIN else _open(value)
        if opened is None:
            return value
        if not walk.enter():
            return _CUT
        try:
            if isinstance(opened, Mapping):
                return {
                    key: REDACTED if self.is_secret(key) else self._redact_nested(item, walk)
                    for key, item in opened.items()
                }
            return [self._redact_nested(item, walk) for item in opened]
        finally:
            walk.leave()


class _Walk:
    """Bounds a walk through nested values, which may be cyclic, by depth and by containers visited."""

    __slots__ = ("depth", "left")

    def __init__(self) -> None:
        self.depth = 0
        self.left = _MAX_CONTAINERS

    def enter(self) -> bool:
        """Tell whether one more container may be opened, and open it."""
        if self.depth >= _MAX_DEPTH or self.left <= 0:
            return False
        self.depth += 1
        self.left -= 1
        return True

    def leave(self) -> None:
        """Close the container opened last."""
        self.depth -= 1


#: What most values are, with nothing inside.
_PLAIN: Final[frozenset[type]] = frozenset({str, int, float, bool, bytes, type(None)})


def _open(value: Any) -> Mapping[Any, object] | Iterable[object] | None:
    """Return a mapping for what has keys or fields, the items of a list or tuple, and None for anything else."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=False))
    if isinstance(value, (Mapping, list, tuple)):
        return value
    if isinstance(value, (set, frozenset)):
        return list(value)
    shown = _shown_fields(value)
    return None if shown is None else {name: getattr(value, name, None) for name in shown}


#: Where pydantic has a model's fields; 2 has the name of 1, too, and warns of it.
_PYDANTIC: Final = "model_fields"
_PYDANTIC_1: Final = "__fields__"


def _shown_fields(value: Any) -> list[str] | None:
    """
    Return the fields of a dataclass, a pydantic model or an attrs object; None for anything else.

    Not those that their class keeps out of `repr`, and none that begins with an underscore.
    """
    kind = type(value)
    if is_dataclass(value) and not isinstance(value, type):
        found = [(field.name, field.repr) for field in fields(value)]
    elif isinstance(models := getattr(kind, _PYDANTIC if hasattr(kind, _PYDANTIC) else _PYDANTIC_1, None), dict):
        found = [(name, getattr(field, "repr", True)) for name, field in models.items()]
    elif isinstance(attributes := getattr(kind, "__attrs_attrs__", None), tuple):
        found = [(attribute.name, attribute.repr is not False) for attribute in attributes]
    else:
        return None
    return [name for name, is_shown in found if is_shown and not name.startswith("_")]


class Clock:
    """Formats wall-clock time as RFC 3339 in UTC with microseconds; the second is formatted once."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def format(self, unix_ns: int) -> str:
        """Return e.g. `2026-11-22T09:30:00.000123Z`."""
        microseconds = unix_ns // 1000
        second = microseconds // 1_000_000
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second = second
        # A format with leading zeros costs three times as much.
        return f"{self._text}{str(1_000_000 + microseconds % 1_000_000)[1:]}Z"


def exception_values(exception: BaseException) -> dict[str, str]:
    """Return the log keys of an exception."""
    kind = type(exception)
    module = kind.__module__
    return {
        names.LOG_EXCEPTION_TYPE: kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}",
        names.LOG_EXCEPTION_MESSAGE: _text(exception),
        names.LOG_EXCEPTION_STACKTRACE: "".join(traceback.format_exception(exception)),
    }


def render_json(values: dict[str, Any]) -> bytes:
    """Return the values as one JSON object and a newline."""
    try:
        line = orjson.dumps(values, default=_text, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError):
        line = b""
    if 0 < len(line) <= MAX_LINE_BYTES:
        return line
    return orjson.dumps(plain(values), option=_OPTIONS)


def plain(value: Any) -> Any:
    """Return what orjson certainly renders: cut to size, cycles and depth ended, invalid Unicode replaced."""
    return _plain(value, _Walk())


def _plain(value: Any, walk: _Walk) -> Any:
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else _text(value)
    if not isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return _text(value)
    if not walk.enter():
        return _CUT
    try:
        if isinstance(value, Mapping):
            return {_text(key): _plain(item, walk) for key, item in _first(value.items())}
        return [_plain(item, walk) for item in _first(value)]
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
