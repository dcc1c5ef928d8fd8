"""Secrets, known by the key they stand under: in nested values, query strings, and texts with URLs in them."""

import re
from collections import deque
from collections.abc import Iterable, Mapping, MappingView
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import unquote_plus

REDACTED: Final = "[REDACTED]"
#: The same where brackets would be escaped.
REDACTED_IN_URL: Final = "REDACTED"
#: What takes the place of what lies too deep.
CUT: Final = "…"
_MAX_DEPTH: Final = 8
_MAX_CONTAINERS: Final = 1000
#: So many decisions are remembered, and none about a longer key: callers invent them.
_MAX_CACHED_KEYS: Final = 4096
#: A key of more words is one by its last ones.
_MAX_WORDS: Final = 6
_MAX_CACHED_CHARACTERS: Final = 64
#: So many of a query string's parameters are shown: whoever sends thousands shall not be waited for.
_MAX_PARAMETERS: Final = 256
#: Between the words of `clientSecret` and of `XApiKey`.
_BETWEEN_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SEPARATORS: Final = re.compile(r"[\W_]+")
#: A parameter in a URL, as far as it goes: a class that excludes its own beginning keeps this linear.
_PARAMETER: Final = re.compile(r"""(?<=[?&#])([^\s?&=#"'<>]+)=([^\s?&#"'<>]+)""")
#: A password in a URL: `redis://user:password@host`.
_PASSWORD: Final = re.compile(r"(?<=://)([^\s/?#@:]*):[^\s/?#]+@")
#: Keys under which a query string stands without the URL that it belongs to.
_QUERY_KEYS: Final = frozenset({"query", "query_string", "url.query", "url_query"})
#: What pydantic and FastAPI say of a value that is invalid stands beside the place where that was found.
_PLACE: Final = "loc"
_FOUND_THERE: Final = frozenset({"input", "ctx"})
_PAIR: Final = 2


class Walk:
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


class Redactor:
    """
    Decides by key which values are secrets, and remembers the decisions.

    Args:
        keys: As `Settings.redacted_keys`.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = frozenset("".join(_words(key)) for key in keys)
        self._known: dict[str | bytes, bool] = {}

    def is_secret(self, key: object) -> bool:
        """Tell whether the value under this key must not be shown."""
        if type(key) is not str and type(key) is not bytes:
            return self._decide(str(key))
        known = self._known.get(key)
        if known is None:
            known = self._decide(key.decode("latin-1") if isinstance(key, bytes) else key)
            if len(key) <= _MAX_CACHED_CHARACTERS:
                if len(self._known) >= _MAX_CACHED_KEYS:
                    self._known.clear()
                self._known[key] = known
        return known

    def _decide(self, key: str) -> bool:
        words = _words(key)[-_MAX_WORDS:]
        return any("".join(words[start:]) in self._keys for start in range(len(words)))

    def redact(self, values: dict[str, Any]) -> dict[str, Any]:
        """Replace secrets in place, in nested values in copies of them."""
        for key, value in values.items():
            if self.is_secret(key):
                if value is not None and type(value) is not bool:  # that there is one, or none, is no secret
                    values[key] = REDACTED
            elif type(value) is str:
                if "?" in value or "@" in value or "=" in value:
                    values[key] = self.query(value) if key in _QUERY_KEYS else self.text(value)
            elif type(value) not in _PLAIN:
                values[key] = self._inside(value)
        return values

    def text(self, text: str) -> str:
        """Return a text in which passwords and secret parameters of URLs are replaced; otherwise as it came."""
        if "@" in text:
            text = _PASSWORD.sub(rf"\1:{REDACTED_IN_URL}@", text)
        return _PARAMETER.sub(self._parameter, text) if "=" in text and ("?" in text or "#" in text) else text

    def query(self, query: str) -> str:
        """Return a query string in which the values of secret parameters are replaced; otherwise as it came."""
        parts = query.split("&", _MAX_PARAMETERS)
        if len(parts) > _MAX_PARAMETERS:
            return "&".join([*map(self._part, parts[:-1]), CUT])
        return "&".join(map(self._part, parts))

    def _part(self, part: str) -> str:
        key, equals, _ = part.partition("=")
        if equals and self._is_secret_parameter(key):
            return f"{key}={REDACTED_IN_URL}"
        return self.text(part) if "?" in part or "@" in part else part

    def _parameter(self, match: re.Match[str]) -> str:
        return f"{match[1]}={REDACTED_IN_URL}" if self._is_secret_parameter(match[1]) else match[0]

    def _is_secret_parameter(self, key: str) -> bool:
        return self.is_secret(unquote_plus(key))

    def _inside(self, value: object) -> object:
        try:
            return self._nested(value, Walk())
        except Exception as error:  # noqa: BLE001 -- a user's class may raise anything when it is looked into
            return f"<{type(value).__name__}: {type(error).__name__} while its secrets were looked for>"

    def _nested(self, value: Any, walk: Walk) -> object:
        if isinstance(value, str):
            return self.text(value)
        opened = None if type(value) in _PLAIN else _open(value)
        if opened is None:
            return value
        if not walk.enter():
            return CUT
        try:
            if isinstance(opened, Mapping):
                return self._mapping(opened, walk)
            items = list(opened)
            if items and all(map(_is_pair, items)):
                # What lists of headers have instead of keys: `(b"authorization", b"…")`.
                return [[key, self._item(key, item, walk)] for key, item in items]
            return [self._nested(item, walk) for item in items]
        finally:
            walk.leave()

    def _mapping(self, opened: Mapping[Any, object], walk: Walk) -> dict[Any, object]:
        place = opened.get(_PLACE)
        is_place_of_a_secret = isinstance(place, (list, tuple)) and any(map(self.is_secret, place))
        return {
            key: REDACTED if is_place_of_a_secret and key in _FOUND_THERE else self._item(key, item, walk)
            for key, item in opened.items()
        }

    def _item(self, key: object, value: Any, walk: Walk) -> object:
        if self.is_secret(key):
            return value if value is None or type(value) is bool else REDACTED
        if isinstance(key, str) and key in _QUERY_KEYS and isinstance(value, (str, bytes)):
            return self.query(value.decode("latin-1") if isinstance(value, bytes) else value)
        return self._nested(value, walk)


def _is_pair(value: object) -> bool:
    """Tell a list or tuple of a key and a value; named tuples have their own keys."""
    return type(value) in {list, tuple} and len(value) == _PAIR and isinstance(value[0], (str, bytes))  # type: ignore[arg-type, index]


def _words(key: str) -> list[str]:
    """Return a key's words in lower case."""
    return [word for word in _SEPARATORS.split(_BETWEEN_WORDS.sub("_", key).lower()) if word]


#: What most values are, with nothing inside.
_PLAIN: Final[frozenset[type]] = frozenset({str, int, float, bool, bytes, type(None)})


def _open(value: Any) -> Mapping[Any, object] | Iterable[object] | None:
    """Return a mapping for what has keys or fields, the items of what has items, and None for anything else."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=False))
    if isinstance(value, (Mapping, list, tuple)):
        return value
    if isinstance(value, (set, frozenset, deque, MappingView)):
        return list(value)  # type: ignore[arg-type]
    if isinstance(value, SimpleNamespace):
        return vars(value)
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
