"""The access line of an ordinary request, written from pieces: what repeats is kept as text that is JSON already.

The same object as `_logs.access_values` rendered, which a property test holds it to.
"""

from typing import Final, TypeVar

import orjson

from obslib import names
from obslib._record import RequestRecord

_MAX_KEPT: Final = 1024
_MAX_CHARACTERS: Final = 256
_USER_AGENT: Final = b"user-agent"

AnyKey = TypeVar("AnyKey")


class AccessLine:
    """Writes access lines of one service."""

    def __init__(self, service_name: str) -> None:
        self._head = (
            f'","{names.LOG_LEVEL}":%s,"{names.LOG_EVENT}":{_json(names.ACCESS_EVENT)},'
            f'"{names.LOG_LOGGER}":{_json(names.ACCESS_LOGGER)},"{names.LOG_SERVICE}":{_json(service_name)},'
            f'"{names.LOG_TRACE_ID}":"'
        )
        #: By what the labels say: the text before and after the ids.
        self._frames: dict[tuple[str, str, int, str, str], tuple[str, str]] = {}
        self._paths: dict[str, str] = {}
        self._callers: dict[tuple[str, bytes], str] = {}

    def render(self, record: RequestRecord, timestamp: str) -> str:
        """Return the line of a request that ended without an exception and to which nothing was bound."""
        key = (record.method, record.route, record.status_code, record.error_type, record.scheme)
        head, middle = self._frames.get(key) or self._make_frame(*key)
        path, caller = record.path, (record.client_address, record.headers.get(_USER_AGENT, b""))
        trace_id, span_id = record.ids
        # The shortest text that is the same float costs five times as much.
        seconds, nanoseconds = divmod(record.duration_ns, 1_000_000_000)
        return (
            f'{{"{names.LOG_TIMESTAMP}":"{timestamp}{head}{trace_id}","{names.LOG_SPAN_ID}":"{span_id}",'
            f'"{names.LOG_REQUEST_ID}":"{record.request_id}",{middle}{self._paths.get(path) or self._new_path(path)},'
            f'"{names.LOG_DURATION}":{seconds}.{str(1_000_000_000 + nanoseconds)[1:]},'
            f'"{names.LOG_REQUEST_BODY_SIZE}":{record.request_body_bytes},'
            f'"{names.LOG_RESPONSE_BODY_SIZE}":{record.response_body_bytes},'
            f"{self._callers.get(caller) or self._new_caller(*caller)}"
        )

    def _make_frame(self, method: str, route: str, status: int, error_type: str, scheme: str) -> tuple[str, str]:
        middle = {
            names.LABEL_METHOD: method,
            names.LABEL_ROUTE: route,
            names.LABEL_STATUS_CODE: status or None,
            names.LABEL_ERROR_TYPE: error_type,
            names.LABEL_SCHEME: scheme,
        }
        text = orjson.dumps(middle).decode()[1:-1]
        level = '"error"' if record_failed(status, error_type) else '"info"'
        frame = (self._head % level, f'{text},"{names.LOG_URL_PATH}":')
        if len(self._frames) < _MAX_KEPT:
            self._frames[method, route, status, error_type, scheme] = frame
        return frame

    def _new_path(self, path: str) -> str:
        return _keep(self._paths, path, _json(path), len(path))

    def _new_caller(self, client_address: str, user_agent: bytes) -> str:
        text = (
            f'"{names.LOG_CLIENT_ADDRESS}":{_json(client_address)},'
            f'"{names.LOG_USER_AGENT}":{_json(user_agent.decode("latin-1"))}}}\n'
        )
        return _keep(self._callers, (client_address, user_agent), text, len(user_agent))


def _keep(kept: dict[AnyKey, str], key: AnyKey, text: str, characters: int) -> str:
    """Keep a text that may come again, and return it."""
    if characters <= _MAX_CHARACTERS:
        if len(kept) >= _MAX_KEPT:
            kept.clear()
        kept[key] = text
    return text


def record_failed(status_code: int, error_type: str) -> bool:
    """Tell whether a request's line is one of level `error`."""
    return status_code >= 500 or error_type == names.ERROR_INCOMPLETE_RESPONSE


def _json(text: str) -> str:
    return orjson.dumps(text.encode("utf-8", "replace").decode()).decode()
