"""The access line of an ordinary request, written from pieces: what repeats is kept as text that is JSON already.

The same object as `_logs.access_values` rendered, which a property test holds it to.
"""

from typing import Final, TypeVar

import orjson

from obslib import names
from obslib._record import TRACE_DIGITS, RequestRecord

_MAX_KEPT: Final = 1024
_MAX_CHARACTERS: Final = 256
_USER_AGENT: Final = b"user-agent"
_SECOND_NS: Final = 1_000_000_000
_BEGIN: Final = f'{{"{names.LOG_TIMESTAMP}":"'
_SPAN_ID: Final = f'","{names.LOG_SPAN_ID}":"'
_REQUEST_ID: Final = f'","{names.LOG_REQUEST_ID}":"'
_DURATION: Final = f',"{names.LOG_DURATION}":'

AnyKey = TypeVar("AnyKey")


class AccessLine:
    """Writes access lines of one service."""

    def __init__(self, service_name: str) -> None:
        self._service = _json(service_name)
        #: By what the labels say: the text before the ids and the one behind them.
        self._frames: dict[tuple[str, str, int, str, str], tuple[str, str]] = {}
        self._paths: dict[str, str] = {}
        self._sizes: dict[tuple[int, int], str] = {}
        self._callers: dict[tuple[str, bytes], str] = {}

    def pieces(self, record: RequestRecord, timestamp: str) -> tuple[str, ...]:
        """Return the line, in pieces, of a request that ended without an exception and to which nothing was bound."""
        key = (record.method, record.route, record.status_code, record.error_type, record.scheme)
        head, middle = self._frames.get(key) or self._make_frame(*key)
        path, sizes = record.path, (record.request_body_bytes, record.response_body_bytes)
        caller, digits = (record.client_address, record.headers.get(_USER_AGENT, b"")), record.id_digits
        duration_ns = record.duration_ns
        return (
            _BEGIN,
            timestamp,
            head,
            digits[:TRACE_DIGITS],
            _SPAN_ID,
            digits[TRACE_DIGITS:],
            _REQUEST_ID,
            record.request_id,
            middle,
            self._paths.get(path) or self._new_path(path),
            _DURATION,
            # The shortest text that is the same float costs five times as much.
            "0." if duration_ns < _SECOND_NS else f"{duration_ns // _SECOND_NS}.",
            str(_SECOND_NS + duration_ns)[-9:],
            self._sizes.get(sizes) or self._new_sizes(*sizes),
            self._callers.get(caller) or self._new_caller(*caller),
        )

    def _make_frame(self, method: str, route: str, status: int, error_type: str, scheme: str) -> tuple[str, str]:
        labels = {
            names.LABEL_METHOD: method,
            names.LABEL_ROUTE: route,
            names.LABEL_STATUS_CODE: status or None,
            names.LABEL_ERROR_TYPE: error_type,
            names.LABEL_SCHEME: scheme,
        }
        level = '"error"' if record_failed(status, error_type) else '"info"'
        head = (
            f'","{names.LOG_LEVEL}":{level},"{names.LOG_EVENT}":{_json(names.ACCESS_EVENT)},'
            f'"{names.LOG_LOGGER}":{_json(names.ACCESS_LOGGER)},"{names.LOG_SERVICE}":{self._service},'
            f'"{names.LOG_TRACE_ID}":"'
        )
        frame = (head, f'",{orjson.dumps(labels).decode()[1:-1]},"{names.LOG_URL_PATH}":')
        if len(self._frames) < _MAX_KEPT:
            self._frames[method, route, status, error_type, scheme] = frame
        return frame

    def _new_sizes(self, request_bytes: int, response_bytes: int) -> str:
        text = f',"{names.LOG_REQUEST_BODY_SIZE}":{request_bytes},"{names.LOG_RESPONSE_BODY_SIZE}":{response_bytes},'
        return _keep(self._sizes, (request_bytes, response_bytes), text, len(text))

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
