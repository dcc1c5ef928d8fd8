"""The access line of an ordinary request, written from pieces: what repeats is kept as text that is JSON already.

The same object as `_logs.access_values` rendered, which a property test holds it to.
"""

from typing import Final

import orjson

from obslib import names
from obslib._kept import Kept
from obslib._record import SPAN_PART, TRACE_PART, RequestRecord

_USER_AGENT: Final = b"user-agent"
_SECOND_NS: Final = 1_000_000_000
_NINE_DIGITS: Final = slice(-9, None)
_BEGIN: Final = f'{{"{names.LOG_TIMESTAMP}":"'
_SPAN_ID: Final = f'","{names.LOG_SPAN_ID}":"'
_REQUEST_ID: Final = f'","{names.LOG_REQUEST_ID}":"'
_DURATION: Final = f',"{names.LOG_DURATION}":'

#: Method, route, status code, error type and scheme.
_Labels = tuple[str, str, int, str, str]


class AccessLine:
    """Writes access lines of one service."""

    def __init__(self, service_name: str) -> None:
        self._service = _json(service_name)
        #: The text before the ids and the one behind them.
        self._frames = Kept[_Labels, tuple[str, str]](self._frame)
        self._paths = Kept[str, str](_json)
        self._sizes = Kept[tuple[int, int], str](_sizes)
        self._callers = Kept[tuple[str, bytes], str](_caller)

    def pieces(self, record: RequestRecord, timestamp: str) -> tuple[str, ...]:
        """Return the line, in pieces, of a request that ended without an exception and to which nothing was bound."""
        head, middle = self._frames[record.method, record.route, record.status_code, record.error_type, record.scheme]
        digits, duration_ns = record.id_digits, record.duration_ns
        return (
            _BEGIN,
            timestamp,
            head,
            digits[TRACE_PART],
            _SPAN_ID,
            digits[SPAN_PART],
            _REQUEST_ID,
            record.request_id,
            middle,
            self._paths[record.path],
            _DURATION,
            # The shortest text that is the same float costs five times as much.
            "0." if duration_ns < _SECOND_NS else f"{duration_ns // _SECOND_NS}.",
            str(_SECOND_NS + duration_ns)[_NINE_DIGITS],
            self._sizes[record.request_body_bytes, record.response_body_bytes],
            self._callers[record.client_address, record.headers.get(_USER_AGENT, b"")],
        )

    def _frame(self, of: _Labels) -> tuple[str, str]:
        method, route, status, error_type, scheme = of
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
        return head, f'",{orjson.dumps(labels).decode()[1:-1]},"{names.LOG_URL_PATH}":'


def _sizes(of: tuple[int, int]) -> str:
    return f',"{names.LOG_REQUEST_BODY_SIZE}":{of[0]},"{names.LOG_RESPONSE_BODY_SIZE}":{of[1]},'


def _caller(of: tuple[str, bytes]) -> str:
    client_address, user_agent = of
    return (
        f'"{names.LOG_CLIENT_ADDRESS}":{_json(client_address)},'
        f'"{names.LOG_USER_AGENT}":{_json(user_agent.decode("latin-1"))}}}\n'
    )


def record_failed(status_code: int, error_type: str) -> bool:
    """Tell whether a request's line is one of level `error`."""
    return status_code >= 500 or error_type == names.ERROR_INCOMPLETE_RESPONSE


def _json(text: str) -> str:
    return orjson.dumps(text.encode("utf-8", "replace").decode()).decode()
